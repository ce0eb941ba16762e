/* Small files of the kernel: one text, one number. */
#ifndef LNS_FILES_H
#define LNS_FILES_H

#include <stdbool.h>
#include <stdint.h>

/* False with errno set. */
bool write_text(const char *path, const char *text);
/* The number behind `key` at the beginning of a line; 0 where there is none. */
uint64_t read_number(const char *path, const char *key);

#endif
