/* Frames and fields of the guest channel; docs/guest-protocol.md is the specification. */
#ifndef LNS_WIRE_H
#define LNS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROTOCOL_VERSION = 1,
    FRAME_MAGIC = 0xC5,
    FRAME_TRAILER = 0x5C, /* any value but 0: a cut frame is completed by zeros */
    HEADER_BYTES = 20,
    FRAME_MAX = 32768, /* what the kernel takes in one write to a virtio port */
    PAYLOAD_MAX = FRAME_MAX - HEADER_BYTES - 1,
    MESSAGE_MAX = 1 << 20, /* a message of several frames */
    NONCE_BYTES = 16,
    PREAMBLE_BYTES = 32, /* mark and nonce */
};

enum frame_type {
    FRAME_HELLO = 1,       /* host: who speaks, time, entropy */
    FRAME_WELCOME = 2,     /* guest: who answers */
    FRAME_READY = 3,       /* guest: the state before this frame is complete */
    FRAME_CONFIGURE = 4,   /* host: disks, mounts, names, limits */
    FRAME_CONFIGURED = 5,  /* guest: done, or why not */
    FRAME_EXEC = 6,        /* host: start a process */
    FRAME_EXEC_STATE = 7,  /* guest: how a process stands */
    FRAME_EXEC_FORGET = 8, /* host: the end of a process is recorded */
    FRAME_SIGNAL = 9,      /* host */
    FRAME_RESIZE = 10,     /* host */
    FRAME_CONNECT = 11,    /* host: connect a stream to a port of the guest, or admit a ticket */
    FRAME_CONNECTED = 12,  /* guest: done, or why not */
    FRAME_DATA = 16,
    FRAME_ACK = 17,
    FRAME_RESET = 18,
    FRAME_STATS = 20,      /* host asks, guest answers */
    FRAME_NOTICE = 21,     /* guest: a line for users */
    FRAME_SHUTDOWN = 22,   /* host: end everything, write back, power off */
    FRAME_GOODBYE = 23,    /* guest: everything is written back */
    FRAME_OPEN = 24,       /* guest: a program wants a connection, under a ticket */
    FRAME_REFUSE = 25,     /* host: it gets none */
    FRAME_WANTED = 26,     /* guest: a program wants a connection, and nobody is at the port `lns.egress` */
    FRAME_CLOCK = 27,      /* host: what time it is */
    FRAME_PREPARE = 28,    /* host: mount an image's disks, before there is a run */
    FRAME_PREPARED = 29,   /* guest: done, or why not */
    FRAME_CLEAR = 30,      /* host: end a rehearsal and forget it */
    FRAME_CLEARED = 31,    /* guest: the next CONFIGURE is the first one's equal */
    FRAME_FREEZE = 32,     /* host: the workload is to stand still, for a snapshot of it */
    FRAME_FROZEN = 33,     /* guest: it does, or why not */
    FRAME_THAW = 34,       /* host: it goes on */
    FRAME_RENEW = 35,      /* host: this machine is another run's now: names, files, limits; then it goes on */
    FRAME_RENEWED = 36,    /* guest: done, or why not */
    FRAME_LAST = FRAME_RENEWED,
};

enum frame_flag {
    FLAG_MORE = 1,    /* the message goes on in the next frame of the same type and id */
    FLAG_FIN = 2,     /* DATA: nothing follows; takes one position of the stream */
    FLAG_REFUSED = 4, /* ACK: nothing further is wanted; RESET: of a process, its output breaks */
};

enum field_tag {
    FIELD_VERSION = 1,
    FIELD_TIME_NS = 2,
    FIELD_ENTROPY = 3,
    FIELD_AGENT = 4,
    FIELD_BOOT_NS = 5,
    FIELD_CONFIGURED = 6,
    FIELD_HIGHEST_ID = 7,
    FIELD_ERRNO = 8,
    FIELD_STAGE = 9,
    FIELD_TEXT = 10,

    FIELD_HOSTNAME = 20,
    FIELD_METADATA_DISK = 21,
    FIELD_PACK_DISK = 22,
    FIELD_NO_ACL = 23,
    FIELD_WRITABLE_DISK = 24,
    FIELD_READ_ONLY_PATH = 25,
    FIELD_FILE = 26,
    FIELD_VOLUME = 27,
    FIELD_SHM_BYTES = 28,
    FIELD_PIDS_MAX = 29,
    FIELD_MEMORY_MAX = 30,
    FIELD_STEERED = 31,
    FIELD_BIND = 32,
    FIELD_EGRESS = 33,
    FIELD_AUTHORITY = 34,
    FIELD_DIRECTORY = 36,

    FIELD_ARG = 40,
    FIELD_ENV = 41,
    FIELD_USER = 42,
    FIELD_WORKDIR = 43,
    FIELD_TTY = 44,
    FIELD_MAIN = 45,
    FIELD_STDIO_STREAM = 46,
    FIELD_STDERR_STREAM = 47,
    FIELD_ROWS = 48,
    FIELD_COLUMNS = 49,
    FIELD_RLIMIT = 50,
    FIELD_UMASK = 51,
    FIELD_OOM_SCORE = 52,
    FIELD_GROUP = 53,
    FIELD_BUILTIN = 54,

    FIELD_STATE = 60,
    FIELD_PID = 61,
    FIELD_EXIT_CODE = 62,
    FIELD_SIGNAL = 63,
    FIELD_OOM_KILLED = 64,
    FIELD_PORT = 65,
    FIELD_ADDRESS = 66,
    FIELD_TICKET = 67,
    FIELD_NAME = 68,

    FIELD_MEMORY_BYTES = 70,
    FIELD_PIDS = 71,
    FIELD_CPU_NS = 72,
    FIELD_DISK_BYTES = 73,
    FIELD_OOM_KILLS = 74,
};

struct frame {
    uint8_t type;
    uint16_t flags;
    uint32_t id;
    uint64_t offset;
    const uint8_t *payload;
    uint32_t length;
};

/* The mark that both ends search for when they are out of step. */
extern const uint8_t SYNC_MARK[16];

/* Writes a header for `length` bytes of payload, which the caller puts behind it with the trailer. */
void frame_put_header(uint8_t out[HEADER_BYTES], const struct frame *frame);

/* Reads one frame. Returns its size, 0 if more bytes are needed, -1 if these bytes are no frame. */
int frame_parse(const uint8_t *data, size_t size, struct frame *frame);

/* A bounded message that is being written; `overflow` is set when it did not fit. */
struct fields {
    uint8_t *data;
    uint32_t size, capacity;
    bool overflow;
};
void fields_put(struct fields *fields, uint16_t tag, const void *value, uint32_t length);
void fields_put_number(struct fields *fields, uint16_t tag, uint64_t value);
void fields_put_text(struct fields *fields, uint16_t tag, const char *text);

/* A message that is being read. */
struct field {
    uint16_t tag;
    const uint8_t *value;
    uint32_t length;
};
/* Takes the next field off; false at the end, and at bytes that are no field. */
bool field_next(const uint8_t **data, uint32_t *size, struct field *field);
uint64_t field_number(const struct field *field);
/* A copy with a NUL behind it, from malloc. */
char *field_text(const struct field *field);

#endif
