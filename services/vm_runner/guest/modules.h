/* The kernel's modules that a microVM cannot do without. */
#ifndef LNS_MODULES_H
#define LNS_MODULES_H

/* Loads every module of a folder in the order of their names; what cannot be loaded is noted. */
void modules_load(const char *folder);

#endif
