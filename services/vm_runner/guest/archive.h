/* Trees as tar archives on the standard streams, for copying into and out of a run. */
#ifndef LNS_ARCHIVE_H
#define LNS_ARCHIVE_H

/* What a process does instead of executing a program; the values of FIELD_BUILTIN. */
enum builtin { BUILTIN_NONE = 0, BUILTIN_PACK = 1, BUILTIN_UNPACK = 2, BUILTIN_NOTHING = 3, BUILTIN_STAT = 4 };

/* Writes the file or tree at `path` to standard output, in the pax format of POSIX, under the path's last name. Links
   are kept as links, symbolic and hard; devices, FIFOs and sockets are left out. Returns the exit code; standard error
   says what failed. */
int archive_pack(const char *path);

/* Unpacks an archive from standard input below the directory at `path`, through nothing but what is below it, and prints
   the number of entries. Existing files are replaced, directories are kept. Returns the exit code; what was unpacked
   before a failure stays, as with tar. */
int archive_unpack(const char *path);

/* Prints what is at `path`, two letters and a path: `f` file, `d` directory, `l` link, `o` other, `-` nothing, first of the
   path itself, then of what its links lead to; then the absolute path that they lead to, whose last name need not exist,
   or nothing where its directory does not. Returns the exit code. */
int stat_path(const char *path);

#endif
