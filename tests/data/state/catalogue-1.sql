-- catalogue-1.sql: as the first released layout was written; never changed.
BEGIN TRANSACTION;
CREATE TABLE images (
    digest TEXT PRIMARY KEY,
    create_time TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;
INSERT INTO "images" VALUES('sha256:abababababababababababababababababababababababababababababababab','2026-01-02T03:04:05+00:00','{"digest": "sha256:abababababababababababababababababababababababababababababababab", "manifest_digest": "sha256:abababababababababababababababababababababababababababababababab", "layers": [], "metadata_bytes": 10, "inode_count": 3, "has_acl": false, "read_only_paths": [], "mounts": [], "create_time": "2026-01-02T03:04:05+00:00"}');
CREATE TABLE leases (
    lease_id TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    expire_time TEXT
) STRICT;
INSERT INTO "leases" VALUES('l1','x','sha256:abababababababababababababababababababababababababababababababab',NULL);
CREATE TABLE requests (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL REFERENCES images ON DELETE CASCADE
) STRICT;
INSERT INTO "requests" VALUES('key','sha256:abababababababababababababababababababababababababababababababab');
CREATE INDEX images_by_time ON images (create_time DESC, digest DESC);
COMMIT;
PRAGMA user_version = 1;
