#include "CNuma.h"

#include <errno.h>
#include <limits.h>
#include <numa.h>
#include <numaif.h>
#include <sched.h>
#include <stdio.h>

int hf_numa_is_available(void) { return numa_available() >= 0; }

int hf_numa_node_max(void) { return numa_available() < 0 ? 0 : numa_max_node(); }

int hf_numa_node_bytes(int node, int64_t *total, int64_t *free) {
    if (numa_available() < 0 || node < 0 || node > numa_max_node()) return -ENODEV;
    long long unused = 0, all = numa_node_size64(node, &unused);
    if (all <= 0) return -ENODEV;
    *total = all, *free = unused;
    return 0;
}

int hf_numa_bind(void *address, size_t bytes, int node) {
    if (numa_available() < 0) return -ENOSYS;
    struct bitmask *nodes = numa_allocate_nodemask();
    if (!nodes) return -ENOMEM;
    numa_bitmask_setbit(nodes, (unsigned)node);
    // The kernel counts one bit less than it is told.
    int result = mbind(address, bytes, MPOL_BIND, nodes->maskp, nodes->size + 1, 0) < 0 ? -errno : 0;
    numa_free_nodemask(nodes);
    return result;
}

int hf_numa_node_of_page(void *address) {
    int node = -1;
    if (get_mempolicy(&node, NULL, 0, address, MPOL_F_NODE | MPOL_F_ADDR) < 0) return -errno;
    return node;
}

int hf_numa_node_of_caller(void) {
    unsigned processor = 0, node = 0;
    if (getcpu(&processor, &node) < 0) return -errno;
    return (int)node;
}

static int read_number(const char *path, long long *number) {
    FILE *file = fopen(path, "re");
    if (!file) return -errno;
    int found = fscanf(file, "%lld", number);
    fclose(file);
    return found == 1 ? 0 : -ENODATA;
}

int64_t hf_numa_free_huge_pages(int node) {
    char path[128];
    if (node < 0)
        snprintf(path, sizeof path, "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    else
        snprintf(path, sizeof path, "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/free_hugepages", node);
    long long count = 0;
    return read_number(path, &count) < 0 ? 0 : count;
}

int hf_numa_node_of_device(const char *folder) {
    static const char *const places[] = {"numa_node", "device/numa_node"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", folder, places[i]) >= (int)sizeof path) return -ENAMETOOLONG;
        long long node = -1;
        if (read_number(path, &node) == 0) return node >= 0 ? (int)node : -ENODATA;
    }
    return -ENODATA;
}
