#include "channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "agent.h"
#include "control.h"
#include "stream.h"

static struct watch port = {.fd = -1};
static bool in_step; /* a preamble was seen and every frame after it was sound */
static bool host_known;
static void (*on_hang_up)(void);
static bool more_input; /* receive() stopped before the port was empty */

static uint8_t rx[4 * FRAME_MAX];
static size_t rx_size;

/* Frames are put together until one write is full: each write is a trip out of the machine. */
static uint8_t tx[3 * FRAME_MAX];
static size_t tx_size, tx_done;
static bool due;

void channel_wake(void)
{
    due = true;
}

bool channel_has_host(void)
{
    return host_known;
}

void channel_on_hang_up(void (*gone)(void))
{
    on_hang_up = gone;
}

static void hang_up(void)
{
    if (!host_known || !on_hang_up)
        return;
    host_known = in_step = false;
    tx_size = tx_done = rx_size = 0;
    on_hang_up();
}

/* A host is new or came back: nothing that was under way to the old one is of use. */
static void restart(const uint8_t nonce[NONCE_BYTES])
{
    in_step = host_known = true;
    memcpy(tx, SYNC_MARK, sizeof SYNC_MARK);
    memcpy(tx + sizeof SYNC_MARK, nonce, NONCE_BYTES);
    tx_size = PREAMBLE_BYTES;
    tx_done = 0;
    streams_restart();
    control_restart();
    due = true;
}

static void dispatch(const struct frame *frame)
{
    switch (frame->type) {
    case FRAME_DATA:
        stream_data(frame);
        break;
    case FRAME_ACK:
        stream_ack(frame);
        break;
    case FRAME_RESET:
        stream_reset(frame);
        break;
    default:
        control_frame(frame);
    }
}

/* Looks for a preamble. Returns the bytes that are used up. */
static size_t search(const uint8_t *data, size_t size)
{
    const uint8_t *mark = memmem(data, size, SYNC_MARK, sizeof SYNC_MARK);
    if (!mark)
        return size < sizeof SYNC_MARK ? 0 : size - (sizeof SYNC_MARK - 1);
    size_t before = (size_t)(mark - data);
    if (size - before < PREAMBLE_BYTES)
        return before;
    restart(mark + sizeof SYNC_MARK);
    return before + PREAMBLE_BYTES;
}

static void digest_input(void)
{
    size_t used = 0;
    while (used < rx_size) {
        if (in_step) {
            struct frame frame;
            int size = frame_parse(rx + used, rx_size - used, &frame);
            if (size == 0)
                break;
            if (size < 0) {
                in_step = false;
                continue;
            }
            dispatch(&frame);
            used += (size_t)size;
        } else {
            size_t skipped = search(rx + used, rx_size - used);
            used += skipped;
            if (!in_step)
                break;
        }
    }
    memmove(rx, rx + used, rx_size - used);
    rx_size -= used;
}

static void receive(void)
{
    /* Bounded, so that the other descriptors have their turn; remembered, since the port is edge triggered. */
    more_input = false;
    for (int turn = 0; turn < 16; turn++) {
        ssize_t n = read(port.fd, rx + rx_size, sizeof rx - rx_size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0 && !in_machine)
            _exit(0); /* a test hung up */
        if (n <= 0)
            return;
        rx_size += (size_t)n;
        digest_input();
    }
    more_input = true;
}

static void port_ready(struct watch *watch, uint32_t events)
{
    (void)watch;
    if (events & ~(uint32_t)EPOLLOUT)
        receive();
    if (events & EPOLLHUP)
        hang_up();
    due = true;
}

/* Fills the send buffer with what is due, the most urgent first. */
static void fill(void)
{
    tx_size = tx_done = 0;
    while (tx_size < FRAME_MAX) {
        size_t n = control_next(tx + tx_size);
        if (n == 0)
            n = streams_next_ack(tx + tx_size);
        if (n == 0)
            n = control_ready(tx + tx_size);
        if (n == 0)
            n = streams_next_data(tx + tx_size);
        if (n == 0)
            return;
        tx_size += n;
    }
}

void channel_pump(void)
{
    if (more_input)
        receive();
    if (!due || !host_known)
        return;
    due = false;
    for (int turn = 0; turn < 16; turn++) {
        while (tx_done < tx_size) {
            ssize_t n = write(port.fd, tx + tx_done, tx_size - tx_done);
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return; /* full, or no host: the port wakes us */
            tx_done += (size_t)n;
        }
        fill();
        if (tx_size == 0)
            return;
    }
    due = true;
}

void channel_flush(void)
{
    for (uint64_t end = now_ns(CLOCK_MONOTONIC) + 2000000000u; now_ns(CLOCK_MONOTONIC) < end;) {
        due = true;
        channel_pump();
        if (tx_done == tx_size)
            return;
        poll(&(struct pollfd){.fd = port.fd, .events = POLLOUT}, 1, 10);
    }
}

int channel_timeout(void)
{
    /* What is due waits for a host: until one greets, nothing can be sent, and only the port's events matter. A
     * wake-up that is lost between two hosts is made good for within half a second. */
    return (due && host_known) || more_input ? 0 : tx_done < tx_size ? 500 : -1;
}

void channel_open(int fd)
{
    port.fd = fd;
    port.ready = port_ready;
    /* Edge triggered: a port without a host reports a hang-up for as long as that lasts. */
    watch_interest(&port, EPOLLIN | EPOLLOUT | EPOLLET);
    receive();
}
