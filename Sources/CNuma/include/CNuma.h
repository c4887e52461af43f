// Where memory lies: nodes of the machine, by libnuma and the kernel's files. Every function returns a value >= 0, or
// -errno. Nothing here keeps state.
#ifndef HOLDFAST_CNUMA_H
#define HOLDFAST_CNUMA_H

#include <stddef.h>
#include <stdint.h>

/// 1 when the kernel places memory by node (a machine of one node included), 0 otherwise.
int hf_numa_is_available(void);
/// The highest node number.
int hf_numa_node_max(void);
/// All memory of a node and what is free of it, bytes; -ENODEV when there is no such node or it has no memory.
int hf_numa_node_bytes(int node, int64_t *total, int64_t *free);
/// Pages of [address, address + bytes) that are touched from now on come from the node and from nowhere else. For a shared
/// mapping this holds for the file, whoever touches it.
int hf_numa_bind(void *address, size_t bytes, int node);
/// The node of the page at the address, which is faulted in if it must be.
int hf_numa_node_of_page(void *address);
/// The node of the processor that runs the caller.
int hf_numa_node_of_caller(void);
/// Free reserved huge pages of 2 MiB: of a node, or of the machine for node -1.
int64_t hf_numa_free_huge_pages(int node);
/// The node that a device's folder in sysfs names (`numa_node` in it or in its `device`); -ENODATA when it names none.
int hf_numa_node_of_device(const char *folder);

#endif
