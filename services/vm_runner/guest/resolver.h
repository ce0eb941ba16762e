/* Answers questions about names, whatever address they are sent to, over UDP and TCP. */
#ifndef LNS_RESOLVER_H
#define LNS_RESOLVER_H

/* Takes over sockets that steering sends questions to: of each family one for UDP, and one that listens. */
void resolver_start(const int udp[2], const int tcp[2]);

#endif
