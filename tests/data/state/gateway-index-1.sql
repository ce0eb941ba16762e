-- gateway-index-1.sql: as the first released layout was written; never changed.
BEGIN TRANSACTION;
CREATE TABLE leases (
    lease_id TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    digests TEXT NOT NULL,        -- a JSON list
    expires TEXT                  -- ISO 8601, UTC
) STRICT, WITHOUT ROWID;
INSERT INTO "leases" VALUES('l1','x','["sha256:abababababababababababababababababababababababababababababababab"]',NULL);
CREATE TABLE origins (
    digest TEXT NOT NULL,
    host TEXT NOT NULL,
    path TEXT NOT NULL,
    seen TEXT NOT NULL,
    PRIMARY KEY (digest, host, path)
) STRICT, WITHOUT ROWID;
INSERT INTO "origins" VALUES('sha256:abababababababababababababababababababababababababababababababab','h.example','a','2026-12-01T11:29:12.514567+00:00');
CREATE TABLE tags (
    reference TEXT PRIMARY KEY,
    root TEXT NOT NULL,           -- descriptor as JSON
    manifest TEXT,                -- descriptor as JSON, where root is an index
    family TEXT NOT NULL,
    total_bytes INTEGER NOT NULL,
    created TEXT NOT NULL         -- ISO 8601, UTC
) STRICT, WITHOUT ROWID;
INSERT INTO "tags" VALUES('h.example/a:v','{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:abababababababababababababababababababababababababababababababab", "size": 7, "artifactType": ""}',NULL,'agent',9,'2026-01-02T03:04:05.000000+00:00');
COMMIT;
PRAGMA user_version = 1;
