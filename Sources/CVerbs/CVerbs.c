#include "CVerbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdlib.h>
#include <string.h>

struct hf_rdma_device {
    struct ibv_context *context;
    hf_rdma_port port;
};
struct hf_rdma_domain {
    struct ibv_pd *domain;
    hf_rdma_device *device;
};
struct hf_rdma_region {
    struct ibv_mr *region;
};
struct hf_rdma_completions {
    struct ibv_comp_channel *channel;
    struct ibv_cq *queue;
};
struct hf_rdma_pair {
    struct ibv_qp *pair;
    hf_rdma_device *device;
};

enum { batch_max = 32 };

// libibverbs leaves its reason in errno, mostly; never report success for its failures.
static int failure(void) { return errno > 0 ? -errno : -EIO; }

static int set_nonblocking(int descriptor) {
    int flags = fcntl(descriptor, F_GETFL);
    return flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

// --- devices

int hf_rdma_device_count(void) {
    int count = 0;
    errno = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    if (!list) return failure();
    ibv_free_device_list(list);
    return count;
}

int hf_rdma_device_name(int number, char *name, size_t name_bytes) {
    int count = 0;
    errno = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    if (!list) return failure();
    int result = -ENODEV;
    if (number >= 0 && number < count && name_bytes > 0) {
        strncpy(name, ibv_get_device_name(list[number]), name_bytes - 1);
        name[name_bytes - 1] = 0;
        result = 0;
    }
    ibv_free_device_list(list);
    return result;
}

// How good an address is: 0 = unusable. RoCE v1 does not pass routers and firewalls know nothing of it.
static int rank_of(const struct ibv_gid_entry *entry, int is_infiniband) {
    if (is_infiniband) return entry->gid_type == IBV_GID_TYPE_IB ? 4 : 0;
    if (entry->gid_type != IBV_GID_TYPE_ROCE_V2) return 0;
    if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)&entry->gid)) return 3;
    return IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)&entry->gid) ? 1 : 2;
}

// Text to a global identifier; 0 when it is no address.
static int parse_address(const char *text, union ibv_gid *address) {
    memset(address, 0, sizeof *address);
    if (inet_pton(AF_INET6, text, address->raw) == 1) return 1;
    address->raw[10] = address->raw[11] = 0xff;
    return inet_pton(AF_INET, text, address->raw + 12) == 1;
}

// The best address of one active port into device->port; whether there is one.
static int choose_address(hf_rdma_device *device, uint8_t port, const union ibv_gid *wanted) {
    struct ibv_port_attr about;
    if (ibv_query_port(device->context, port, &about) || about.state != IBV_PORT_ACTIVE) return 0;
    struct ibv_gid_entry entries[256];
    ssize_t count = ibv_query_gid_table(device->context, entries, 256, 0);
    int is_infiniband = about.link_layer != IBV_LINK_LAYER_ETHERNET, best = 0;
    for (ssize_t i = 0; i < count; i++) {
        if (entries[i].port_num != port) continue;
        if (wanted && memcmp(wanted->raw, entries[i].gid.raw, 16)) continue;
        int rank = rank_of(&entries[i], is_infiniband);
        if (rank <= best) continue;
        best = rank;
        memcpy(device->port.address, entries[i].gid.raw, 16);
        device->port.address_index = entries[i].gid_index;
    }
    if (!best) return 0;
    device->port.port = port;
    device->port.is_infiniband = is_infiniband;
    device->port.local_identifier = about.lid;
    device->port.mtu_bytes = 128u << about.active_mtu;
    device->port.message_bytes_max = about.max_msg_sz;
    return 1;
}

// Whether a port of an open device suits; fills in what the device can do.
static int choose_port(hf_rdma_device *device, const union ibv_gid *wanted) {
    struct ibv_device_attr about;
    if (ibv_query_device(device->context, &about)) return 0;
    for (int port = 1; port <= about.phys_port_cnt; port++) {
        if (!choose_address(device, port, wanted)) continue;
        strncpy(device->port.name, ibv_get_device_name(device->context->device), sizeof device->port.name - 1);
        device->port.reads_as_initiator_max = about.max_qp_init_rd_atom;
        device->port.reads_as_responder_max = about.max_qp_rd_atom;
        device->port.send_depth_max = about.max_qp_wr;
        device->port.completions_max = about.max_cqe;
        return 1;
    }
    return 0;
}

int hf_rdma_open(const char *name, const char *address, hf_rdma_device **result) {
    union ibv_gid wanted;
    if (address && !parse_address(address, &wanted)) return -EINVAL;
    int count = 0;
    errno = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    if (!list) return failure();
    hf_rdma_device *device = calloc(1, sizeof *device);
    int reason = device ? -ENODEV : -ENOMEM;
    for (int i = 0; device && i < count; i++) {
        if (name && strcmp(name, ibv_get_device_name(list[i]))) continue;
        device->context = ibv_open_device(list[i]);
        if (!device->context) {
            reason = failure();
            continue;
        }
        if (choose_port(device, address ? &wanted : NULL)) {
            reason = set_nonblocking(device->context->async_fd);
            break;
        }
        reason = -ENETDOWN;
        ibv_close_device(device->context);
        device->context = NULL;
    }
    ibv_free_device_list(list);
    if (reason < 0) {
        hf_rdma_close(device);
        return reason;
    }
    *result = device;
    return 0;
}

void hf_rdma_close(hf_rdma_device *device) {
    if (device && device->context) ibv_close_device(device->context);
    free(device);
}

void hf_rdma_describe(const hf_rdma_device *device, hf_rdma_port *port) { *port = device->port; }

int hf_rdma_event_descriptor(const hf_rdma_device *device) { return device->context->async_fd; }

int hf_rdma_next_event(hf_rdma_device *device, uint32_t *pair) {
    struct ibv_async_event event;
    *pair = 0;
    errno = 0;
    if (ibv_get_async_event(device->context, &event)) return errno == EAGAIN ? 0 : failure();
    int kind = 6;
    switch (event.event_type) {
    case IBV_EVENT_DEVICE_FATAL: kind = 1; break;
    case IBV_EVENT_PORT_ERR: kind = 2; break;
    case IBV_EVENT_PORT_ACTIVE: kind = 3; break;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
        kind = 4;
        *pair = event.element.qp->qp_num;
        break;
    case IBV_EVENT_CQ_ERR: kind = 5; break;
    default: break;
    }
    ibv_ack_async_event(&event);
    return kind;
}

// --- memory

int hf_rdma_domain_create(hf_rdma_device *device, hf_rdma_domain **result) {
    hf_rdma_domain *domain = calloc(1, sizeof *domain);
    if (!domain) return -ENOMEM;
    errno = 0;
    domain->device = device;
    domain->domain = ibv_alloc_pd(device->context);
    if (!domain->domain) {
        free(domain);
        return failure();
    }
    *result = domain;
    return 0;
}

int hf_rdma_domain_destroy(hf_rdma_domain *domain) {
    int error = ibv_dealloc_pd(domain->domain);
    if (error) return -error;
    free(domain);
    return 0;
}

static int access_of(uint32_t access) {
    return (access & 1 ? IBV_ACCESS_LOCAL_WRITE : 0) | (access & 2 ? IBV_ACCESS_REMOTE_READ : 0) |
           (access & 4 ? IBV_ACCESS_REMOTE_WRITE : 0);
}

static int keep(struct ibv_mr *registered, hf_rdma_region **result) {
    if (!registered) return failure();
    hf_rdma_region *region = calloc(1, sizeof *region);
    if (!region) {
        ibv_dereg_mr(registered);
        return -ENOMEM;
    }
    region->region = registered;
    *result = region;
    return 0;
}

int hf_rdma_register(hf_rdma_domain *domain, void *address, size_t bytes, uint32_t access, hf_rdma_region **region) {
    errno = 0;
    return keep(ibv_reg_mr(domain->domain, address, bytes, access_of(access)), region);
}

int hf_rdma_register_dmabuf(hf_rdma_domain *domain, int dmabuf, uint64_t offset, size_t bytes,
                            uint64_t virtual_address, uint32_t access, hf_rdma_region **region) {
    errno = 0;
    return keep(ibv_reg_dmabuf_mr(domain->domain, offset, bytes, virtual_address, dmabuf, access_of(access)), region);
}

int hf_rdma_deregister(hf_rdma_region *region) {
    int error = ibv_dereg_mr(region->region);
    if (error) return -error;
    free(region);
    return 0;
}

uint32_t hf_rdma_local_key(const hf_rdma_region *region) { return region->region->lkey; }

uint32_t hf_rdma_remote_key(const hf_rdma_region *region) { return region->region->rkey; }

// --- completions

int hf_rdma_completions_create(hf_rdma_device *device, int entries, hf_rdma_completions **result) {
    hf_rdma_completions *completions = calloc(1, sizeof *completions);
    if (!completions) return -ENOMEM;
    int error = 0;
    errno = 0;
    completions->channel = ibv_create_comp_channel(device->context);
    if (!completions->channel) error = failure();
    if (!error) error = set_nonblocking(completions->channel->fd);
    if (!error) {
        completions->queue = ibv_create_cq(device->context, entries, NULL, completions->channel, 0);
        if (!completions->queue) error = failure();
    }
    if (error) {
        if (completions->channel) ibv_destroy_comp_channel(completions->channel);
        free(completions);
        return error;
    }
    *result = completions;
    return 0;
}

int hf_rdma_completions_destroy(hf_rdma_completions *completions) {
    int error = ibv_destroy_cq(completions->queue);
    if (error) return -error;
    ibv_destroy_comp_channel(completions->channel);
    free(completions);
    return 0;
}

int hf_rdma_completions_descriptor(const hf_rdma_completions *completions) { return completions->channel->fd; }

int hf_rdma_completions_arm(hf_rdma_completions *completions) { return -ibv_req_notify_cq(completions->queue, 0); }

int hf_rdma_completions_clear(hf_rdma_completions *completions) {
    struct ibv_cq *queue;
    void *tag;
    unsigned count = 0;
    while (!ibv_get_cq_event(completions->channel, &queue, &tag)) count++;
    if (count) ibv_ack_cq_events(completions->queue, count);
    return count > 0;
}

int hf_rdma_poll(hf_rdma_completions *completions, hf_rdma_completion *taken, int count_max) {
    struct ibv_wc raw[batch_max];
    int count = ibv_poll_cq(completions->queue, count_max < batch_max ? count_max : batch_max, raw);
    if (count < 0) return -EIO;
    for (int i = 0; i < count; i++) {
        // Only id, status and pair are defined in a completion that failed.
        int is_whole = raw[i].status == IBV_WC_SUCCESS;
        int has_immediate = is_whole && (raw[i].wc_flags & IBV_WC_WITH_IMM);
        taken[i] = (hf_rdma_completion){
            .id = raw[i].wr_id,
            .pair = raw[i].qp_num,
            .status = raw[i].status,
            .bytes = is_whole ? raw[i].byte_len : 0,
            .immediate = has_immediate ? ntohl(raw[i].imm_data) : 0,
            .is_receive = is_whole && (raw[i].opcode & IBV_WC_RECV),
            .has_immediate = has_immediate,
        };
    }
    return count;
}

const char *hf_rdma_status_text(uint32_t status) { return ibv_wc_status_str((enum ibv_wc_status)status); }

// --- queue pairs

int hf_rdma_pair_create(hf_rdma_domain *domain, hf_rdma_completions *completions, hf_rdma_pair_settings *settings,
                        hf_rdma_pair **result) {
    struct ibv_qp_init_attr wanted = {
        .send_cq = completions->queue,
        .recv_cq = completions->queue,
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = settings->send_depth,
                .max_recv_wr = settings->receive_depth,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = settings->inline_bytes},
    };
    hf_rdma_pair *pair = calloc(1, sizeof *pair);
    if (!pair) return -ENOMEM;
    errno = 0;
    pair->device = domain->device;
    pair->pair = ibv_create_qp(domain->domain, &wanted);
    if (!pair->pair) {
        int error = failure();
        free(pair);
        return error;
    }
    struct ibv_qp_attr start = {
        .qp_state = IBV_QPS_INIT,
        .port_num = domain->device->port.port,
        .qp_access_flags = access_of(settings->peer_access & 6),
    };
    int error = ibv_modify_qp(pair->pair, &start,
                              IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    if (error) {
        ibv_destroy_qp(pair->pair);
        free(pair);
        return -error;
    }
    settings->inline_bytes = wanted.cap.max_inline_data;
    *result = pair;
    return 0;
}

int hf_rdma_pair_destroy(hf_rdma_pair *pair) {
    int error = ibv_destroy_qp(pair->pair);
    if (error) return -error;
    free(pair);
    return 0;
}

uint32_t hf_rdma_pair_number(const hf_rdma_pair *pair) { return pair->pair->qp_num; }

static enum ibv_mtu mtu_of(uint32_t bytes) {
    return bytes >= 4096 ? IBV_MTU_4096 : bytes >= 2048 ? IBV_MTU_2048 : bytes >= 1024 ? IBV_MTU_1024
         : bytes >= 512 ? IBV_MTU_512 : IBV_MTU_256;
}

int hf_rdma_pair_connect(hf_rdma_pair *pair, const hf_rdma_connection *to) {
    const hf_rdma_port *port = &pair->device->port;
    struct ibv_qp_attr hear = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = mtu_of(to->mtu_bytes),
        .dest_qp_num = to->peer_pair,
        .rq_psn = to->peer_packet_number,
        .max_dest_rd_atomic = to->reads_as_responder,
        .min_rnr_timer = 12, // 0.64 ms; never used, as credits keep receives posted
        .ah_attr = {.is_global = 1,
                    .dlid = to->peer_local_identifier,
                    .port_num = port->port,
                    .grh = {.sgid_index = port->address_index,
                            .hop_limit = to->hop_limit,
                            .traffic_class = to->traffic_class}},
    };
    memcpy(hear.ah_attr.grh.dgid.raw, to->peer_address, 16);
    int error = ibv_modify_qp(pair->pair, &hear,
                              IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (error) return -error;
    struct ibv_qp_attr speak = {
        .qp_state = IBV_QPS_RTS,
        .sq_psn = to->own_packet_number,
        .timeout = to->timeout,
        .retry_cnt = to->retry_count,
        .rnr_retry = to->not_ready_retry_count,
        .max_rd_atomic = to->reads_as_initiator,
    };
    return -ibv_modify_qp(pair->pair, &speak,
                          IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                              IBV_QP_MAX_QP_RD_ATOMIC);
}

int hf_rdma_pair_fail(hf_rdma_pair *pair) {
    struct ibv_qp_attr end = {.qp_state = IBV_QPS_ERR};
    return -ibv_modify_qp(pair->pair, &end, IBV_QP_STATE);
}

int hf_rdma_pair_state(hf_rdma_pair *pair) {
    struct ibv_qp_attr about;
    struct ibv_qp_init_attr first;
    int error = ibv_query_qp(pair->pair, &about, IBV_QP_STATE, &first);
    return error ? -error : (int)about.qp_state;
}

int hf_rdma_post_sends(hf_rdma_pair *pair, const hf_rdma_send *sends, int count, int *posted) {
    static const enum ibv_wr_opcode operations[] = {
        IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_SEND_WITH_IMM};
    struct ibv_send_wr requests[batch_max], *refused = NULL;
    struct ibv_sge pieces[batch_max];
    *posted = 0;
    if (count <= 0 || count > batch_max) return -EINVAL;
    for (int i = 0; i < count; i++) {
        const hf_rdma_send *send = &sends[i];
        if (send->operation > 3) return -EINVAL;
        pieces[i] = (struct ibv_sge){.addr = send->local_address, .length = send->bytes, .lkey = send->local_key};
        requests[i] = (struct ibv_send_wr){
            .wr_id = send->id,
            .next = i + 1 < count ? &requests[i + 1] : NULL,
            .sg_list = &pieces[i],
            .num_sge = send->bytes > 0,
            .opcode = operations[send->operation],
            .send_flags = (send->is_signaled ? IBV_SEND_SIGNALED : 0) | (send->is_inline ? IBV_SEND_INLINE : 0),
        };
        if (send->operation == 3) requests[i].imm_data = htonl(send->immediate);
        if (send->operation == 1 || send->operation == 2) {
            requests[i].wr.rdma.remote_addr = send->peer_address;
            requests[i].wr.rdma.rkey = send->peer_key;
        }
    }
    int error = ibv_post_send(pair->pair, requests, &refused);
    *posted = error ? (int)(refused - requests) : count;
    return -error;
}

int hf_rdma_post_receives(hf_rdma_pair *pair, const hf_rdma_receive *receives, int count, int *posted) {
    struct ibv_recv_wr requests[batch_max], *refused = NULL;
    struct ibv_sge pieces[batch_max];
    *posted = 0;
    if (count <= 0 || count > batch_max) return -EINVAL;
    for (int i = 0; i < count; i++) {
        pieces[i] = (struct ibv_sge){
            .addr = receives[i].local_address, .length = receives[i].bytes, .lkey = receives[i].local_key};
        requests[i] = (struct ibv_recv_wr){
            .wr_id = receives[i].id,
            .next = i + 1 < count ? &requests[i + 1] : NULL,
            .sg_list = &pieces[i],
            .num_sge = 1,
        };
    }
    int error = ibv_post_recv(pair->pair, requests, &refused);
    *posted = error ? (int)(refused - requests) : count;
    return -error;
}
