/* The certificate authority of a run, added to what the workload's programs trust. */
#ifndef LNS_TRUST_H
#define LNS_TRUST_H

#include <stddef.h>

#define TRUST_DIRECTORY "/run/lns"
#define TRUST_AUTHORITY TRUST_DIRECTORY "/ca.pem"        /* the authority alone */
#define TRUST_BUNDLE TRUST_DIRECTORY "/ca-bundle.pem"    /* all that is trusted */
#define TRUST_HOST_ROOTS "roots.pem"                     /* the host's, in the agent's root */

/*
 * Adds the authority (PEM) to the bundles and key stores of the root that this process has, never in their place, and
 * writes TRUST_AUTHORITY and TRUST_BUNDLE. An image without a bundle gets one of the host's roots. What cannot be
 * written is left as it is: programs that need it refuse the connection. `machine_root` shows the agent's root.
 */
void trust_install(const char *authority, size_t size, int machine_root);

#endif
