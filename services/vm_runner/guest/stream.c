#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel.h"

enum { DATA_PER_TURN = 32000 }; /* one stream's share before the next one's turn */

static struct stream *streams;
static unsigned stream_count;
static uint32_t highest_id;

static bool output_ended(const struct stream *s)
{
    return s->source.fd < 0;
}

/* The end of output takes one position, so that it is acknowledged like a byte. */
static uint64_t output_length(const struct stream *s)
{
    return s->end + (output_ended(s) ? 1 : 0);
}

static void stream_free(struct stream *s)
{
    for (struct stream **p = &streams; *p; p = &(*p)->next) {
        if (*p == s) {
            *p = s->next;
            break;
        }
    }
    stream_count--;
    watch_close(&s->source);
    watch_close(&s->sink);
    free(s->out);
    free(s->in);
    free(s);
}

/* Frees a stream of which neither direction can carry anything more. */
static bool freed_if_done(struct stream *s)
{
    bool output_done = output_ended(s) && (s->discards || s->acked == s->end + 1);
    bool input_done = s->sink.fd < 0 || (s->input_ended && s->consumed == s->received);
    if (!output_done || !input_done || s->ack_due)
        return false;
    stream_free(s);
    return true;
}

static void update_interest(struct stream *s)
{
    bool room = s->discards || s->end - s->acked < s->window;
    if (s->source.fd >= 0)
        watch_interest(&s->source, room ? EPOLLIN : 0);
    if (s->sink.fd >= 0)
        watch_interest(&s->sink, s->consumed < s->received ? EPOLLOUT : 0);
}

static void source_ready(struct watch *watch, uint32_t events)
{
    (void)events;
    struct stream *s = watch->owner;
    static uint8_t scrap[65536];
    ssize_t n;
    if (s->discards) {
        n = read(s->source.fd, scrap, sizeof scrap);
    } else {
        if (!s->out)
            s->out = allocate(s->window);
        uint32_t at = (uint32_t)(s->end % s->window);
        uint64_t room = s->window - (s->end - s->acked);
        if (room > s->window - at)
            room = s->window - at;
        n = read(s->source.fd, s->out + at, (size_t)room);
        if (n > 0)
            s->end += (uint64_t)n;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* a terminal whose last user is gone says EIO */
        watch_close(&s->source);
        if (s->is_terminal)
            stream_close_sink(s);
    }
    if (freed_if_done(s))
        return;
    update_interest(s);
    channel_wake();
}

static void drain_to_sink(struct stream *s)
{
    while (s->sink.fd >= 0 && s->consumed < s->received) {
        uint32_t at = (uint32_t)(s->consumed % s->window);
        uint64_t size = s->received - s->consumed;
        if (size > s->window - at)
            size = s->window - at;
        ssize_t n = write(s->sink.fd, s->in + at, (size_t)size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            stream_close_sink(s);
            return;
        }
        s->consumed += (uint64_t)n;
    }
    if (s->consumed + s->window - s->announced >= s->window / 4)
        s->ack_due = true;
    if (s->input_ended && s->consumed == s->received && s->sink.fd >= 0 && !s->is_terminal) {
        if (s->is_socket)
            shutdown(s->sink.fd, SHUT_WR);
        watch_close(&s->sink);
    }
}

static void sink_ready(struct watch *watch, uint32_t events)
{
    struct stream *s = watch->owner;
    drain_to_sink(s);
    /* Only a peer that hung up says so while nothing can be written. */
    if (s->sink.fd >= 0 && s->consumed < s->received && (events & (EPOLLERR | EPOLLHUP)) && !(events & EPOLLOUT))
        stream_close_sink(s);
    if (freed_if_done(s))
        return;
    update_interest(s);
    channel_wake();
}

struct stream *stream_open(uint32_t id, int source, int sink, uint32_t window)
{
    if (stream_count >= STREAMS_MAX || stream_find(id))
        return NULL;
    struct stream *s = allocate(sizeof *s);
    s->id = id;
    s->window = window;
    s->source = (struct watch){.fd = source, .ready = source_ready, .owner = s};
    s->sink = (struct watch){.fd = sink, .ready = sink_ready, .owner = s};
    s->ack_due = true;
    s->next = streams;
    streams = s;
    stream_count++;
    if (id > highest_id)
        highest_id = id;
    update_interest(s);
    channel_wake();
    return s;
}

struct stream *stream_find(uint32_t id)
{
    for (struct stream *s = streams; s; s = s->next)
        if (s->id == id)
            return s;
    return NULL;
}

void stream_close_sink(struct stream *s)
{
    if (s->sink.fd < 0)
        return;
    watch_close(&s->sink);
    s->consumed = s->received;
    s->ack_due = true;
    channel_wake();
}

void stream_data(const struct frame *frame)
{
    struct stream *s = stream_find(frame->id);
    if (!s || s->input_ended || frame->offset > s->received)
        return;
    uint64_t skip = s->received - frame->offset;
    if (skip < frame->length) {
        uint32_t size = frame->length - (uint32_t)skip;
        const uint8_t *data = frame->payload + skip;
        if (s->received + size > s->announced)
            return; /* beyond the credit: the host is at fault, and is not helped by half of it */
        if (s->sink.fd < 0) {
            s->received += size;
            s->consumed = s->received;
        } else {
            if (!s->in)
                s->in = allocate(s->window);
            for (uint32_t done = 0; done < size;) {
                uint32_t at = (uint32_t)(s->received % s->window);
                uint32_t piece = size - done < s->window - at ? size - done : s->window - at;
                memcpy(s->in + at, data + done, piece);
                s->received += piece;
                done += piece;
            }
        }
    }
    if ((frame->flags & FLAG_FIN) && frame->offset + frame->length == s->received) {
        s->input_ended = true;
        s->ack_due = true;
    }
    drain_to_sink(s);
    if (freed_if_done(s))
        return;
    update_interest(s);
    channel_wake();
}

void stream_ack(const struct frame *frame)
{
    struct stream *s = stream_find(frame->id);
    if (!s || frame->length != 8 || frame->offset > output_length(s))
        return;
    uint64_t limit;
    memcpy(&limit, frame->payload, 8);
    if (frame->offset > s->acked)
        s->acked = frame->offset;
    if (!s->resumed) {
        s->resumed = true;
        s->sent = s->acked;
        s->limit = limit;
    } else if (limit > s->limit) {
        s->limit = limit;
    }
    if (freed_if_done(s))
        return;
    update_interest(s);
    channel_wake();
}

void socket_give_up(int fd)
{
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1}, sizeof(struct linger));
}

void stream_reset(const struct frame *frame)
{
    struct stream *s = stream_find(frame->id);
    if (!s)
        return;
    s->discards = true;
    s->ack_due = false;
    s->acked = s->sent = s->end;
    if (s->is_socket)
        socket_give_up(s->source.fd >= 0 ? s->source.fd : s->sink.fd);
    if (!s->is_terminal || !s->outlives_host)
        watch_close(&s->sink);
    if (!s->outlives_host || (frame->flags & FLAG_REFUSED && !s->is_terminal)) /* refused: the writer gets EPIPE */
        watch_close(&s->source);
    if (freed_if_done(s))
        return;
    update_interest(s);
}

void streams_give_up(void)
{
    for (struct stream *s = streams, *next; s; s = next) {
        next = s->next;
        stream_reset(&(struct frame){.id = s->id});
    }
}

void streams_restart(void)
{
    for (struct stream *s = streams; s; s = s->next) {
        s->resumed = false;
        s->limit = 0;
        s->ack_due = !s->discards;
    }
}

static size_t put_frame(uint8_t *out, const struct frame *frame)
{
    frame_put_header(out, frame);
    out[HEADER_BYTES + frame->length] = FRAME_TRAILER;
    return HEADER_BYTES + frame->length + 1;
}

size_t streams_next_ack(uint8_t *out)
{
    for (struct stream *s = streams; s; s = s->next) {
        if (!s->ack_due)
            continue;
        s->ack_due = false;
        s->announced = s->consumed + s->window;
        struct frame frame = {.type = FRAME_ACK, .id = s->id, .length = 8,
                              .offset = s->received + (s->input_ended ? 1 : 0),
                              .flags = s->sink.fd < 0 || s->input_ended ? FLAG_REFUSED : 0};
        memcpy(out + HEADER_BYTES, &s->announced, 8);
        size_t size = put_frame(out, &frame);
        freed_if_done(s);
        return size;
    }
    return 0;
}

/* Moves a stream to the end of the list, so that the others have their turn first. */
static void rotate(struct stream *s)
{
    struct stream **p = &streams;
    while (*p != s)
        p = &(*p)->next;
    *p = s->next;
    while (*p)
        p = &(*p)->next;
    *p = s;
    s->next = NULL;
}

size_t streams_next_data(uint8_t *out)
{
    for (struct stream *s = streams; s; s = s->next) {
        if (!s->resumed || s->discards || s->sent > s->end)
            continue;
        uint64_t size = s->end - s->sent;
        if (size > s->limit - s->sent && s->limit >= s->sent)
            size = s->limit - s->sent;
        if (s->limit < s->sent)
            size = 0;
        if (size > DATA_PER_TURN)
            size = DATA_PER_TURN;
        bool fin = output_ended(s) && s->sent + size == s->end;
        if (size == 0 && !fin)
            continue;
        struct frame frame = {.type = FRAME_DATA, .id = s->id, .length = (uint32_t)size, .offset = s->sent,
                              .flags = fin ? FLAG_FIN : 0};
        for (uint32_t done = 0; done < size;) {
            uint32_t at = (uint32_t)((s->sent + done) % s->window);
            uint32_t piece = (uint32_t)size - done < s->window - at ? (uint32_t)size - done : s->window - at;
            memcpy(out + HEADER_BYTES + done, s->out + at, piece);
            done += piece;
        }
        s->sent += size + (fin ? 1 : 0);
        size_t total = put_frame(out, &frame);
        rotate(s);
        return total;
    }
    return 0;
}

uint32_t streams_highest_id(void)
{
    return highest_id;
}

void streams_clear(void)
{
    while (streams)
        stream_free(streams);
    highest_id = 0;
}
