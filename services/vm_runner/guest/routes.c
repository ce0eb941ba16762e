#include "routes.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const uint8_t OWN_ADDRESS_6[16] = {0xfd, 0x6c, 0x6e, 0x73, [15] = 1};

enum { LOOPBACK = 1, REQUEST_BYTES = 256, ANSWER_BYTES = 1024 };

/* One request and its attributes. */
struct request {
    struct nlmsghdr header;
    uint8_t rest[REQUEST_BYTES];
};

static int netlink = -1;

static void *begin(struct request *request, int type, int flags, size_t size)
{
    memset(request, 0, sizeof *request);
    request->header = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH((uint32_t)size), .nlmsg_type = (uint16_t)type,
                                        .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags)};
    return NLMSG_DATA(&request->header);
}

static void add(struct request *request, int type, const void *value, size_t size)
{
    struct rtattr *attribute = (struct rtattr *)((uint8_t *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    attribute->rta_type = (uint16_t)type;
    attribute->rta_len = (uint16_t)RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), value, size);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
}

static void add_number(struct request *request, int type, uint32_t value)
{
    add(request, type, &value, sizeof value);
}

/* Sends a request and takes its answer; false with errno set. */
static bool ask(const struct request *request)
{
    _Alignas(struct nlmsghdr) uint8_t answer[ANSWER_BYTES];
    if (send(netlink, request, request->header.nlmsg_len, 0) < 0 || recv(netlink, answer, sizeof answer, 0) < 0)
        return false;
    const struct nlmsghdr *header = (const void *)answer;
    const struct nlmsgerr *error = NLMSG_DATA(header);
    errno = header->nlmsg_type == NLMSG_ERROR ? -error->error : EPROTO;
    return errno == 0;
}

/* An address, or a network, of either family. */
struct target {
    int family;
    unsigned bits;
    uint8_t address[16];
};

static size_t address_size(int family)
{
    return family == AF_INET ? 4 : 16;
}

static bool add_address(const struct target *own)
{
    struct request request;
    struct ifaddrmsg *message = begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *message);
    *message = (struct ifaddrmsg){.ifa_family = (uint8_t)own->family, .ifa_prefixlen = (uint8_t)own->bits,
                                  .ifa_flags = IFA_F_NODAD, .ifa_scope = RT_SCOPE_UNIVERSE, .ifa_index = LOOPBACK};
    add(&request, IFA_LOCAL, own->address, address_size(own->family));
    add(&request, IFA_ADDRESS, own->address, address_size(own->family));
    return ask(&request);
}

static bool add_route(const struct target *to, int type, const struct target *source)
{
    struct request request;
    struct rtmsg *message = begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof *message);
    *message = (struct rtmsg){.rtm_family = (uint8_t)to->family, .rtm_dst_len = (uint8_t)to->bits,
                              .rtm_table = RT_TABLE_LOCAL, .rtm_protocol = RTPROT_STATIC, .rtm_type = (uint8_t)type,
                              .rtm_scope = type == RTN_LOCAL ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE};
    add(&request, RTA_DST, to->address, address_size(to->family));
    if (type == RTN_LOCAL)
        add_number(&request, RTA_OIF, LOOPBACK);
    if (source)
        add(&request, RTA_PREFSRC, source->address, address_size(source->family));
    return ask(&request);
}

/* What a rule looks at besides its family: a destination, a protocol or a mark. */
struct rule {
    uint32_t priority;
    const struct target *to;
    uint8_t protocol;
    uint32_t mark;
    bool unreachable;
};

static bool change_rule(int type, int family, const struct rule *rule)
{
    struct request request;
    struct fib_rule_hdr *message =
        begin(&request, type, type == RTM_NEWRULE ? NLM_F_CREATE | NLM_F_EXCL : 0, sizeof *message);
    *message = (struct fib_rule_hdr){.family = (uint8_t)family, .table = rule->unreachable ? 0 : RT_TABLE_LOCAL,
                                     .dst_len = rule->to ? (uint8_t)rule->to->bits : 0,
                                     .action = rule->unreachable ? FR_ACT_UNREACHABLE : FR_ACT_TO_TBL};
    add_number(&request, FRA_PRIORITY, rule->priority);
    if (rule->to)
        add(&request, FRA_DST, rule->to->address, address_size(family));
    if (rule->protocol)
        add(&request, FRA_IP_PROTO, &rule->protocol, 1);
    if (rule->mark)
        add_number(&request, FRA_FWMARK, rule->mark);
    return ask(&request);
}

/* The kernel's own first rule, which looks every packet up, gives way to rules that look at the protocol. */
static bool make_rules(int family, const struct target *loopback, const struct target *own)
{
    const struct rule rules[] = {
        {.priority = 1, .to = loopback},
        {.priority = 2, .to = own},
        {.priority = 3, .protocol = IPPROTO_TCP},
        {.priority = 4, .protocol = IPPROTO_UDP},
        {.priority = 5, .mark = ROUTED_MARK},
        {.priority = 6, .unreachable = true},
    };
    for (unsigned i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!change_rule(RTM_NEWRULE, family, &rules[i]))
            return false;
    return change_rule(RTM_DELRULE, family, &(struct rule){.priority = 0});
}

static bool raise_loopback(void)
{
    struct request request;
    struct ifinfomsg *message = begin(&request, RTM_NEWLINK, 0, sizeof *message);
    *message = (struct ifinfomsg){.ifi_index = LOOPBACK, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    return ask(&request);
}

static bool start_family(int family, const struct target *loopback, const struct target *own,
                         const struct target *unreachable, size_t count)
{
    const struct target everything = {.family = family};
    if (!add_address(own) || !add_route(&everything, RTN_LOCAL, own))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!add_route(&unreachable[i], RTN_UNREACHABLE, NULL))
            return false;
    return make_rules(family, loopback, own);
}

bool routes_start(uint32_t network, struct failure *failure)
{
    struct target own_4 = {.family = AF_INET, .bits = 32}, own_6 = {.family = AF_INET6, .bits = 128};
    const struct target loopback_4 = {.family = AF_INET, .bits = 8, .address = {127}};
    const struct target loopback_6 = {.family = AF_INET6, .bits = 128, .address = {[15] = 1}};
    const struct target unreachable_4[] = {
        {.family = AF_INET, .bits = 4, .address = {224}},
        {.family = AF_INET, .bits = 32, .address = {255, 255, 255, 255}},
    };
    const struct target unreachable_6[] = {{.family = AF_INET6, .bits = 8, .address = {0xff}}};
    uint32_t own = htonl(network + OWN_HOST);
    memcpy(own_4.address, &own, sizeof own);
    memcpy(own_6.address, OWN_ADDRESS_6, sizeof OWN_ADDRESS_6);
    netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (netlink < 0 || !raise_loopback())
        return failed_at(failure, "routes: loopback");
    bool started = start_family(AF_INET, &loopback_4, &own_4, unreachable_4, 2) || failed_at(failure, "routes: IPv4");
    started = started && (start_family(AF_INET6, &loopback_6, &own_6, unreachable_6, 1) ||
                          failed_at(failure, "routes: IPv6"));
    close(netlink);
    return started;
}
