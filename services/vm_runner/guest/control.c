#include "control.h"

#include <errno.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent.h"
#include "channel.h"
#include "clock.h"
#include "connect.h"
#include "egress.h"
#include "machine.h"
#include "outgoing.h"
#include "process.h"
#include "stream.h"

enum { NOTICES = 32, NOTICE_BYTES = 400, BOOT_MOMENTS = 8 };

static bool welcome_due, ready_due, prepared_due, configured_due, cleared_due, frozen_due, renewed_due, stats_due, goodbye_due;
static uint64_t boot_moments[BOOT_MOMENTS];
static unsigned boot_moment_count;
static char notices[NOTICES][NOTICE_BYTES];
static unsigned notices_written, notices_sent;

/* A message of several frames, until it is whole. */
static uint8_t partial[MESSAGE_MAX];
static uint32_t partial_size;

static void hello(const uint8_t *data, uint32_t size)
{
    struct field field;
    while (field_next(&data, &size, &field)) {
        if (field.tag == FIELD_TIME_NS && in_machine) {
            clock_told(field_number(&field));
        } else if (field.tag == FIELD_ENTROPY && in_machine) {
            machine_add_entropy(field.value, field.length);
        }
    }
}

static bool connections_only;

void control_serve_connections_only(void)
{
    connections_only = true;
}

static void message(uint8_t type, uint32_t id, const uint8_t *data, uint32_t size)
{
    if (connections_only && type != FRAME_CONNECT && type != FRAME_REFUSE)
        return;
    switch (type) {
    case FRAME_HELLO:
    case FRAME_CLOCK:
        hello(data, size);
        break;
    case FRAME_CONFIGURE:
        machine_configure(data, size);
        configured_due = true;
        break;
    case FRAME_PREPARE:
        machine_prepare(data, size);
        prepared_due = true;
        break;
    case FRAME_CLEAR:
        machine_clear();
        cleared_due = true;
        break;
    case FRAME_FREEZE:
        machine_freeze();
        frozen_due = true;
        break;
    case FRAME_THAW:
        machine_thaw();
        break;
    case FRAME_RENEW:
        machine_renew(data, size);
        renewed_due = true;
        break;
    case FRAME_EXEC:
        process_start(id, data, size);
        break;
    case FRAME_EXEC_FORGET:
        process_forget(id);
        break;
    case FRAME_SIGNAL:
        process_signal(id, data, size);
        break;
    case FRAME_RESIZE:
        process_resize(id, data, size);
        break;
    case FRAME_CONNECT:
        connect_start(id, data, size);
        break;
    case FRAME_REFUSE:
        outgoing_refuse(id);
        break;
    case FRAME_STATS:
        stats_due = true;
        break;
    case FRAME_SHUTDOWN:
        machine_unmount();
        goodbye_due = true;
        channel_flush();
        machine_power_off();
        break;
    default:
        break; /* of a later version: the host learns ours from the welcome */
    }
    channel_wake();
}

void control_frame(const struct frame *frame)
{
    if (frame->length > MESSAGE_MAX - partial_size) {
        partial_size = 0;
        note("a message of the host is too long");
        return;
    }
    if (partial_size == 0 && !(frame->flags & FLAG_MORE)) {
        message(frame->type, frame->id, frame->payload, frame->length);
        return;
    }
    memcpy(partial + partial_size, frame->payload, frame->length);
    partial_size += frame->length;
    if (frame->flags & FLAG_MORE)
        return;
    uint32_t size = partial_size;
    partial_size = 0;
    message(frame->type, frame->id, partial, size);
}

static void put_welcome(struct fields *fields)
{
    fields_put_number(fields, FIELD_VERSION, PROTOCOL_VERSION);
    fields_put_text(fields, FIELD_AGENT, LNS_AGENT_VERSION);
    fields_put_number(fields, FIELD_CONFIGURED, machine_is_configured());
    uint32_t highest = streams_highest_id();
    if (process_highest_id() > highest)
        highest = process_highest_id();
    fields_put_number(fields, FIELD_HIGHEST_ID, highest);
    for (unsigned i = 0; i < boot_moment_count; i++)
        fields_put_number(fields, FIELD_BOOT_NS, boot_moments[i]);
}

static void put_notice(struct fields *fields)
{
    if (notices_written - notices_sent > NOTICES)
        notices_sent = notices_written - NOTICES;
    fields_put_text(fields, FIELD_TEXT, notices[notices_sent++ % NOTICES]);
}

static size_t finish(uint8_t *out, uint8_t type, uint32_t id, uint32_t length)
{
    struct frame frame = {.type = type, .id = id, .length = length};
    frame_put_header(out, &frame);
    out[HEADER_BYTES + length] = FRAME_TRAILER;
    return HEADER_BYTES + length + 1;
}

static bool taken(bool *flag)
{
    bool was = *flag;
    *flag = false;
    return was;
}

size_t control_next(uint8_t *out)
{
    struct fields fields = {.data = out + HEADER_BYTES, .capacity = PAYLOAD_MAX};
    uint8_t type = 0;
    uint32_t id = 0;
    if (taken(&welcome_due)) {
        type = FRAME_WELCOME;
        put_welcome(&fields);
    } else if (taken(&configured_due)) {
        type = FRAME_CONFIGURED;
        machine_put_configured(&fields);
    } else if (taken(&prepared_due)) {
        type = FRAME_PREPARED;
        machine_put_prepared(&fields);
    } else if (taken(&cleared_due)) {
        type = FRAME_CLEARED;
    } else if (taken(&frozen_due)) {
        type = FRAME_FROZEN;
        machine_put_frozen(&fields);
    } else if (taken(&renewed_due)) {
        type = FRAME_RENEWED;
        machine_put_renewed(&fields);
    } else if ((id = process_put_state(&fields))) {
        type = FRAME_EXEC_STATE;
    } else if ((id = connect_put_result(&fields))) {
        type = FRAME_CONNECTED;
    } else if ((id = outgoing_put_request(&fields))) {
        type = FRAME_OPEN;
    } else if (egress_wants_host()) {
        type = FRAME_WANTED;
    } else if (taken(&stats_due)) {
        type = FRAME_STATS;
        machine_put_stats(&fields);
    } else if (notices_sent != notices_written) {
        type = FRAME_NOTICE;
        put_notice(&fields);
    } else if (taken(&goodbye_due)) {
        type = FRAME_GOODBYE;
    }
    return type ? finish(out, type, id, fields.size) : 0;
}

size_t control_ready(uint8_t *out)
{
    return taken(&ready_due) ? finish(out, FRAME_READY, 0, 0) : 0;
}

void control_restart(void)
{
    welcome_due = ready_due = true;
    configured_due = machine_is_configured();
    stats_due = prepared_due = cleared_due = frozen_due = renewed_due = false;
    partial_size = 0;
    processes_restart();
    outgoing_restart();
    egress_restart();
}

void control_notice(const char *text)
{
    char *slot = notices[notices_written++ % NOTICES];
    strncpy(slot, text, NOTICE_BYTES - 1);
    channel_wake();
}

void control_boot_moment(uint64_t ns)
{
    if (boot_moment_count < BOOT_MOMENTS)
        boot_moments[boot_moment_count++] = ns;
}
