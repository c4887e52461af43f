#include "CCuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Functions and types as NVIDIA's management library documents them (NVML API reference: initialisation, device queries).

typedef struct {
    unsigned gpu, memory;
} nvml_utilization;

struct hf_nvml {
    void *library;
    int is_running;
    unsigned count;

    int (*init)(void);
    int (*shutdown)(void);
    int (*device_count)(unsigned *);
    int (*device)(unsigned, void **);
    int (*device_name)(void *, char *, unsigned);
    int (*utilization)(void *, nvml_utilization *);
    int (*power)(void *, unsigned *);
    const char *(*error)(int);
};

static int find_functions(hf_nvml *nvml, char *why, size_t why_bytes) {
    struct {
        const char *name;
        void *place;
    } all[] = {
        {"nvmlInit_v2", &nvml->init},
        {"nvmlShutdown", &nvml->shutdown},
        {"nvmlDeviceGetCount_v2", &nvml->device_count},
        {"nvmlDeviceGetHandleByIndex_v2", &nvml->device},
        {"nvmlDeviceGetName", &nvml->device_name},
        {"nvmlDeviceGetUtilizationRates", &nvml->utilization},
        {"nvmlDeviceGetPowerUsage", &nvml->power},
        {"nvmlErrorString", &nvml->error},
    };
    for (size_t index = 0; index < sizeof all / sizeof *all; index++) {
        void *found = dlsym(nvml->library, all[index].name);
        if (!found) {
            snprintf(why, why_bytes, "the management library has no %s", all[index].name);
            return -1;
        }
        // The one way from an object's address to a function's that C allows.
        memcpy(all[index].place, &found, sizeof found);
    }
    return 0;
}

int hf_nvml_open(const char *library, hf_nvml **result, char *why, size_t why_bytes) {
    hf_nvml *nvml = calloc(1, sizeof *nvml);
    if (!nvml) {
        snprintf(why, why_bytes, "no memory");
        return -1;
    }
    int error = -1;
    nvml->library = dlopen(library ? library : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!nvml->library) {
        snprintf(why, why_bytes, "there is no management library of a GPU: %s", dlerror());
    } else {
        error = find_functions(nvml, why, why_bytes);
        if (!error) {
            error = nvml->init();
            nvml->is_running = !error;
            if (!error) error = nvml->device_count(&nvml->count);
            if (error) snprintf(why, why_bytes, "the GPUs' management library: %s", nvml->error(error));
        }
    }
    if (error) {
        hf_nvml_close(nvml);
        return error;
    }
    *result = nvml;
    return 0;
}

void hf_nvml_close(hf_nvml *nvml) {
    if (nvml->is_running) nvml->shutdown();
    if (nvml->library) dlclose(nvml->library);
    free(nvml);
}

int hf_nvml_count(const hf_nvml *nvml) { return (int)nvml->count; }

void hf_nvml_name(hf_nvml *nvml, int gpu, char *name, size_t name_bytes) {
    void *device = NULL;
    name[0] = 0;
    if (nvml->device((unsigned)gpu, &device) || nvml->device_name(device, name, (unsigned)name_bytes)) name[0] = 0;
}

int hf_nvml_use(hf_nvml *nvml, int gpu, uint32_t *busy, uint32_t *memory, uint32_t *milliwatts) {
    void *device = NULL;
    nvml_utilization use = {0, 0};
    unsigned power = 0;
    int error = nvml->device((unsigned)gpu, &device);
    if (!error) error = nvml->utilization(device, &use);
    if (error) return error;
    // Not every GPU tells its power.
    if (nvml->power(device, &power)) power = 0;
    *busy = use.gpu;
    *memory = use.memory;
    *milliwatts = power;
    return 0;
}
