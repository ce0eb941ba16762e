/* Java's key store format JKS, as sun.security.provider.JavaKeyStore reads it: certificates that are trusted. */
#ifndef LNS_JKS_H
#define LNS_JKS_H

#include <stddef.h>
#include <stdint.h>

/* Makes a key store with the password "changeit" of the certificates of a PEM bundle. Returns malloc'ed bytes, NULL for a bundle
   without certificates. */
uint8_t *jks_of_pem(const char *pem, size_t size, size_t *made);

#endif
