// Reliable queue pairs of libibverbs, behind opaque handles. Functions return a value >= 0, or -errno, and keep no
// state of their own. A handle is used by one thread at a time unless it says otherwise; what depends on a handle is
// destroyed before it.
#ifndef HOLDFAST_CVERBS_H
#define HOLDFAST_CVERBS_H

#include <stddef.h>
#include <stdint.h>

typedef struct hf_rdma_device hf_rdma_device;           // an open device, one of its ports, one address of that port
typedef struct hf_rdma_domain hf_rdma_domain;           // a protection domain: keys of one are void in another
typedef struct hf_rdma_region hf_rdma_region;           // registered memory
typedef struct hf_rdma_completions hf_rdma_completions; // a completion queue with its event channel
typedef struct hf_rdma_pair hf_rdma_pair;               // a reliable connected queue pair

// --- devices

/// How many devices this machine has; -ENOSYS when its kernel has no RDMA at all.
int hf_rdma_device_count(void);
/// The name of the device with this number.
int hf_rdma_device_name(int number, char *name, size_t name_bytes);

/// Opens the device with this name (NULL: any) whose active port has this address (IPv4 or IPv6 text, NULL: any).
/// The port's address is chosen by kind, never by number: RoCE v2 with an IPv4 address, RoCE v2 with a global IPv6
/// one, then InfiniBand's own. -ENODEV: no such device; -ENETDOWN: there, but no port of it is active and has it.
int hf_rdma_open(const char *name, const char *address, hf_rdma_device **device);
void hf_rdma_close(hf_rdma_device *device);

typedef struct {
    char name[64];
    uint8_t address[16];         // the global identifier; an IPv4 address stands as ::ffff:a.b.c.d
    uint32_t address_index;
    uint32_t port;
    uint32_t local_identifier;   // InfiniBand only, else 0
    uint32_t is_infiniband;
    uint32_t mtu_bytes;          // of a packet on the wire
    uint32_t message_bytes_max;
    uint32_t reads_as_initiator_max; // outstanding READs of one queue pair that it asks for
    uint32_t reads_as_responder_max; // and that it serves
    uint32_t send_depth_max;
    uint32_t completions_max;
} hf_rdma_port;
void hf_rdma_describe(const hf_rdma_device *device, hf_rdma_port *port);

/// Events of the device: readable when there is one.
int hf_rdma_event_descriptor(const hf_rdma_device *device);
/// Takes one event without waiting; *pair gets the number of the queue pair it is about, or 0.
/// 0 = none, 1 = the device failed, 2 = the port went down, 3 = the port came up, 4 = a queue pair failed,
/// 5 = a completion queue overflowed, 6 = something else.
int hf_rdma_next_event(hf_rdma_device *device, uint32_t *pair);

// --- memory

int hf_rdma_domain_create(hf_rdma_device *device, hf_rdma_domain **domain);
int hf_rdma_domain_destroy(hf_rdma_domain *domain);

/// access: 1 = this machine's device may write, 2 = the peer may read, 4 = the peer may write.
int hf_rdma_register(hf_rdma_domain *domain, void *address, size_t bytes, uint32_t access, hf_rdma_region **region);
/// Memory of another device (a GPU), exported as a dma-buf; virtual_address is what the peer names it by.
/// -EOPNOTSUPP where kernel or adapter cannot.
int hf_rdma_register_dmabuf(hf_rdma_domain *domain, int dmabuf, uint64_t offset, size_t bytes,
                            uint64_t virtual_address, uint32_t access, hf_rdma_region **region);
int hf_rdma_deregister(hf_rdma_region *region);
uint32_t hf_rdma_local_key(const hf_rdma_region *region);
uint32_t hf_rdma_remote_key(const hf_rdma_region *region);

// --- completions

int hf_rdma_completions_create(hf_rdma_device *device, int entries, hf_rdma_completions **completions);
int hf_rdma_completions_destroy(hf_rdma_completions *completions);
/// Readable after the queue was armed and then completed something.
int hf_rdma_completions_descriptor(const hf_rdma_completions *completions);
/// From now on the next completion makes the descriptor readable. Poll once more before sleeping on it.
int hf_rdma_completions_arm(hf_rdma_completions *completions);
/// Takes and acknowledges what made the descriptor readable.
int hf_rdma_completions_clear(hf_rdma_completions *completions);

typedef struct {
    uint64_t id;        // of the work request
    uint32_t pair;      // number of the local queue pair
    uint32_t status;    // 0 = done; else ibv_wc_status: 5 = flushed, 9 = refused by the peer, 10 = its memory
                        // protection, 12 = the peer does not answer, 13 = it had no receive posted
    uint32_t bytes;     // received
    uint32_t immediate; // received with it
    uint32_t is_receive;
    uint32_t has_immediate;
} hf_rdma_completion;
/// Takes at most count_max completions, oldest first.
int hf_rdma_poll(hf_rdma_completions *completions, hf_rdma_completion *taken, int count_max);
/// What a status means, in libibverbs' words.
const char *hf_rdma_status_text(uint32_t status);

// --- queue pairs

typedef struct {
    uint32_t send_depth;    // work requests
    uint32_t receive_depth;
    uint32_t inline_bytes;  // wanted; what was got comes back here
    uint32_t peer_access;   // 2 = the peer may read, 4 = may write (of regions that allow it); 0 = nothing
} hf_rdma_pair_settings;
/// Creates a pair in the state INIT: receives can be posted, nothing can be sent.
int hf_rdma_pair_create(hf_rdma_domain *domain, hf_rdma_completions *completions, hf_rdma_pair_settings *settings,
                        hf_rdma_pair **pair);
int hf_rdma_pair_destroy(hf_rdma_pair *pair);
uint32_t hf_rdma_pair_number(const hf_rdma_pair *pair);

typedef struct {
    uint32_t peer_pair;
    uint32_t peer_packet_number;  // 24 bits: the first the peer will send
    uint32_t own_packet_number;
    uint8_t peer_address[16];
    uint32_t peer_local_identifier;
    uint32_t mtu_bytes;           // 256, 512, 1024, 2048 or 4096
    uint32_t reads_as_initiator;
    uint32_t reads_as_responder;
    uint32_t timeout;             // 4.096 µs × 2^timeout until a packet is sent again; at most 31
    uint32_t retry_count;         // at most 7
    uint32_t not_ready_retry_count; // at most 7, which means for ever
    uint32_t hop_limit;
    uint32_t traffic_class;
} hf_rdma_connection;
/// INIT → RTR → RTS: connects the pair to its peer.
int hf_rdma_pair_connect(hf_rdma_pair *pair, const hf_rdma_connection *connection);
/// → ERR: nothing is accepted from the peer any more, and all that is posted completes as flushed.
int hf_rdma_pair_fail(hf_rdma_pair *pair);
/// 1 = INIT, 2 = RTR, 3 = RTS, 4 = SQD, 5 = SQE, 6 = ERR.
int hf_rdma_pair_state(hf_rdma_pair *pair);

typedef struct {
    uint64_t id;
    uint64_t local_address;
    uint64_t peer_address; // WRITE and READ
    uint32_t peer_key;
    uint32_t local_key;
    uint32_t bytes;
    uint32_t immediate;
    uint8_t operation;     // 0 = SEND, 1 = WRITE, 2 = READ, 3 = SEND with immediate
    uint8_t is_signaled;   // completes visibly
    uint8_t is_inline;     // its bytes are taken while posting
    uint8_t reserved;
} hf_rdma_send;
/// Posts all of these (at most 32) with one doorbell; *posted says how many were taken, all unless it failed.
/// -ENOMEM: the queue is full.
int hf_rdma_post_sends(hf_rdma_pair *pair, const hf_rdma_send *sends, int count, int *posted);

typedef struct {
    uint64_t id;
    uint64_t local_address;
    uint32_t local_key;
    uint32_t bytes;
} hf_rdma_receive;
/// Posts all of these (at most 32) with one doorbell; *posted as above.
int hf_rdma_post_receives(hf_rdma_pair *pair, const hf_rdma_receive *receives, int count, int *posted);

#endif
