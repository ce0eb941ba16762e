#include "packet.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#define __FAVOR_BSD
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>

enum { HOPS = 64 };

static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};

bool address_is_4(const uint8_t address[16])
{
    return memcmp(address, MAPPED, sizeof MAPPED) == 0;
}

uint32_t address_4(const uint8_t address[16])
{
    uint32_t value;
    memcpy(&value, address + 12, sizeof value);
    return ntohl(value);
}

void address_put_4(uint8_t address[16], uint32_t value)
{
    value = htonl(value);
    memcpy(address, MAPPED, sizeof MAPPED);
    memcpy(address + 12, &value, sizeof value);
}

static uint32_t add_words(uint32_t sum, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i + 1 < size; i += 2)
        sum += (uint32_t)data[i] << 8 | data[i + 1];
    return size % 2 ? sum + ((uint32_t)data[size - 1] << 8) : sum;
}

/* Of a segment or datagram with its pseudo header. The mapped form adds the same constant at both ends: it is left out. */
static uint16_t checksum(const struct end *from, const struct end *to, uint8_t protocol, const uint8_t *data, size_t size)
{
    size_t skip = address_is_4(from->address) ? 12 : 0;
    uint32_t sum = add_words(protocol + (uint32_t)size, from->address + skip, 16 - skip);
    sum = add_words(sum, to->address + skip, 16 - skip);
    sum = add_words(sum, data, size);
    while (sum >> 16)
        sum = (sum >> 16) + (sum & 0xFFFF);
    return htons((uint16_t)~sum);
}

/* Writes the header of IPv4 or IPv6 in front of `size` bytes. Returns its size. */
static size_t put_ip(uint8_t *packet, const struct end *from, const struct end *to, uint8_t protocol, size_t size)
{
    if (address_is_4(from->address)) {
        struct ip ip = {.ip_v = 4, .ip_hl = 5, .ip_len = htons((uint16_t)(sizeof ip + size)), .ip_ttl = HOPS,
                        .ip_p = protocol, .ip_src.s_addr = htonl(address_4(from->address)),
                        .ip_dst.s_addr = htonl(address_4(to->address))};
        memcpy(packet, &ip, sizeof ip);
        return sizeof ip;
    }
    struct ip6_hdr ip = {.ip6_flow = htonl(6u << 28), .ip6_plen = htons((uint16_t)size), .ip6_nxt = protocol,
                         .ip6_hlim = HOPS};
    memcpy(&ip.ip6_src, from->address, 16);
    memcpy(&ip.ip6_dst, to->address, 16);
    memcpy(packet, &ip, sizeof ip);
    return sizeof ip;
}

/* Takes a segment, whose addresses are known, over. */
static bool read_segment(struct syn *syn, const uint8_t *segment, size_t size)
{
    struct tcphdr tcp;
    if (size < sizeof tcp)
        return false;
    memcpy(&tcp, segment, sizeof tcp);
    size_t header = tcp.th_off * 4u;
    if (header < sizeof tcp || size < header || (tcp.th_flags & (TH_SYN | TH_ACK)) != TH_SYN)
        return false;
    syn->from.port = ntohs(tcp.th_sport);
    syn->to.port = ntohs(tcp.th_dport);
    syn->sequence = ntohl(tcp.th_seq);
    size_t at = put_ip(syn->packet, &syn->from, &syn->to, IPPROTO_TCP, header);
    memcpy(syn->packet + at, segment, header);
    tcp.th_sum = 0;
    memcpy(syn->packet + at, &tcp, sizeof tcp);
    tcp.th_sum = checksum(&syn->from, &syn->to, IPPROTO_TCP, syn->packet + at, header);
    memcpy(syn->packet + at, &tcp, sizeof tcp);
    syn->size = (uint32_t)(at + header);
    return true;
}

bool syn_read_4(struct syn *syn, const uint8_t *packet, size_t size)
{
    struct ip ip;
    if (size < sizeof ip)
        return false;
    memcpy(&ip, packet, sizeof ip);
    size_t header = ip.ip_hl * 4u;
    if (header < sizeof ip || size < header || ip.ip_p != IPPROTO_TCP)
        return false;
    address_put_4(syn->from.address, ntohl(ip.ip_src.s_addr));
    address_put_4(syn->to.address, ntohl(ip.ip_dst.s_addr));
    return read_segment(syn, packet + header, size - header);
}

bool syn_read_6(struct syn *syn, const uint8_t from[16], const uint8_t to[16], const uint8_t *segment, size_t size)
{
    memcpy(syn->from.address, from, 16);
    memcpy(syn->to.address, to, 16);
    return read_segment(syn, segment, size);
}

size_t refusal_write(uint8_t packet[HEADERS_MAX], const struct syn *syn)
{
    struct tcphdr tcp = {.th_sport = htons(syn->to.port), .th_dport = htons(syn->from.port),
                         .th_ack = htonl(syn->sequence + 1), .th_off = 5, .th_flags = TH_RST | TH_ACK};
    size_t at = put_ip(packet, &syn->to, &syn->from, IPPROTO_TCP, sizeof tcp);
    tcp.th_sum = checksum(&syn->to, &syn->from, IPPROTO_TCP, (uint8_t *)&tcp, sizeof tcp);
    memcpy(packet + at, &tcp, sizeof tcp);
    return at + sizeof tcp;
}

size_t datagram_write(uint8_t *packet, size_t room, const struct end *from, const struct end *to, const void *data,
                      size_t size)
{
    struct udphdr udp = {.uh_sport = htons(from->port), .uh_dport = htons(to->port),
                         .uh_ulen = htons((uint16_t)(sizeof udp + size))};
    if (room < sizeof(struct ip6_hdr) + sizeof udp + size)
        return 0;
    size_t at = put_ip(packet, from, to, IPPROTO_UDP, sizeof udp + size);
    memcpy(packet + at, &udp, sizeof udp);
    memcpy(packet + at + sizeof udp, data, size);
    udp.uh_sum = checksum(from, to, IPPROTO_UDP, packet + at, sizeof udp + size);
    if (!udp.uh_sum)
        udp.uh_sum = 0xFFFF; /* 0 stands for no checksum */
    memcpy(packet + at, &udp, sizeof udp);
    return at + sizeof udp + size;
}
