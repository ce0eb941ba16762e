/* Streams: pairs of byte sequences between a descriptor of the guest and the host, by absolute position. */
#ifndef LNS_STREAM_H
#define LNS_STREAM_H

#include "agent.h"
#include "wire.h"

enum { STREAMS_MAX = 1024 };

struct stream {
    uint32_t id;
    uint32_t window;      /* bytes kept in each direction at most */
    struct watch source;  /* what is read here goes to the host; fd -1: nothing (more) comes */
    struct watch sink;    /* what the host sends is written here; fd -1: nobody takes it */
    bool discards;        /* the host gave the stream up: read on, so that the writer lives, and keep nothing */
    bool is_terminal;     /* the end of input does not hang it up */
    bool is_socket;       /* the end of input is a half-close */
    bool outlives_host;   /* of a process: a host that gives the stream up does not end it */

    /* to the host: positions `acked` <= `sent` <= `end`; [acked, end) is in `out` */
    uint8_t *out;
    uint64_t acked, sent, end, limit;
    bool resumed; /* the host said since its hello where to go on */

    /* from the host: [consumed, received) is in `in` */
    uint8_t *in;
    uint64_t consumed, received, announced;
    bool input_ended;
    bool ack_due;

    struct stream *next;
};

/* Makes a stream of two descriptors, either may be -1; they may not be the same (use dup). NULL: too many. */
struct stream *stream_open(uint32_t id, int source, int sink, uint32_t window);
struct stream *stream_find(uint32_t id);
/* Has the last close of a connection tell its other end that it broke. */
void socket_give_up(int fd);
/* Nobody reads the host's bytes any more. */
void stream_close_sink(struct stream *stream);

/* Frames from the host. */
void stream_data(const struct frame *frame);
void stream_ack(const struct frame *frame);
void stream_reset(const struct frame *frame);

/* Breaks every connection: the host that had the other ends is gone. */
void streams_give_up(void);
/* A host said hello: credits are void until it says where to go on. */
void streams_restart(void);
/* Puts one due frame into `out`, which has room for FRAME_MAX. Returns its size, 0 if nothing is due. */
size_t streams_next_ack(uint8_t *out);
size_t streams_next_data(uint8_t *out);
uint32_t streams_highest_id(void);
/* Closes every stream and forgets them with their ids. */
void streams_clear(void);

#endif
