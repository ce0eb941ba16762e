/* The program of type SK_LOOKUP that chooses sockets; see steer.h. */
#ifndef LNS_STEER_PROGRAM_H
#define LNS_STEER_PROGRAM_H

#include "steer.h"

/* Places of one family in the map of sockets. */
enum { PLACE_FRONT, PLACE_DROPPING, PLACE_TCP, PLACE_UDP, PLACES };

/* Loads the program. Returns its descriptor, -1 with errno set. */
int steer_load_program(const struct steering *steering, int sockets);
/* bpf(2) with BPF_MAP_CREATE, BPF_LINK_CREATE … */
int steer_bpf(unsigned command, void *attributes, unsigned size);

#endif
