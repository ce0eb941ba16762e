#include "wire.h"

#include <stdlib.h>
#include <string.h>

#include "agent.h"

const uint8_t SYNC_MARK[16] = {0xF1, 'l', 'n', 's', '-', 'g', 'u', 'e', 's', 't', '-', 's', 'y', 'n', 'c', 0x1F};

/* Both architectures that lns runs on are little endian, as the protocol is. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little endian");

void frame_put_header(uint8_t out[HEADER_BYTES], const struct frame *frame)
{
    out[0] = FRAME_MAGIC;
    out[1] = frame->type;
    memcpy(out + 2, &frame->flags, 2);
    memcpy(out + 4, &frame->length, 4);
    memcpy(out + 8, &frame->id, 4);
    memcpy(out + 12, &frame->offset, 8);
}

int frame_parse(const uint8_t *data, size_t size, struct frame *frame)
{
    if (size < HEADER_BYTES)
        return 0;
    frame->type = data[1];
    memcpy(&frame->flags, data + 2, 2);
    memcpy(&frame->length, data + 4, 4);
    memcpy(&frame->id, data + 8, 4);
    memcpy(&frame->offset, data + 12, 8);
    if (data[0] != FRAME_MAGIC || frame->type == 0 || frame->type > FRAME_LAST || frame->length > PAYLOAD_MAX)
        return -1;
    size_t total = HEADER_BYTES + frame->length + 1;
    if (size < total)
        return 0;
    if (data[total - 1] != FRAME_TRAILER)
        return -1;
    frame->payload = data + HEADER_BYTES;
    return (int)total;
}

void fields_put(struct fields *fields, uint16_t tag, const void *value, uint32_t length)
{
    if (fields->overflow || length > fields->capacity - fields->size ||
        fields->capacity - fields->size - length < 6) {
        fields->overflow = true;
        return;
    }
    memcpy(fields->data + fields->size, &tag, 2);
    memcpy(fields->data + fields->size + 2, &length, 4);
    memcpy(fields->data + fields->size + 6, value, length);
    fields->size += 6 + length;
}

void fields_put_number(struct fields *fields, uint16_t tag, uint64_t value)
{
    fields_put(fields, tag, &value, 8);
}

void fields_put_text(struct fields *fields, uint16_t tag, const char *text)
{
    fields_put(fields, tag, text, (uint32_t)strlen(text));
}

bool field_next(const uint8_t **data, uint32_t *size, struct field *field)
{
    if (*size < 6)
        return false;
    memcpy(&field->tag, *data, 2);
    memcpy(&field->length, *data + 2, 4);
    if (field->length > *size - 6)
        return false;
    field->value = *data + 6;
    *data += 6 + field->length;
    *size -= 6 + field->length;
    return true;
}

uint64_t field_number(const struct field *field)
{
    uint64_t value = 0;
    if (field->length == 8)
        memcpy(&value, field->value, 8);
    return value;
}

char *field_text(const struct field *field)
{
    char *text = allocate(field->length + 1);
    memcpy(text, field->value, field->length);
    return text;
}
