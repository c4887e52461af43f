// Stands in for NVIDIA's management library: two GPUs, one of which does not tell its power. Tests build it and open it by its path.
#include <stdio.h>

static int is_running;

int nvmlInit_v2(void) {
    is_running++;
    return 0;
}
int nvmlShutdown(void) {
    is_running--;
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 2;
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    static int devices[2];
    if (index >= 2) return 2;
    *device = &devices[index];
    devices[index] = (int)index;
    return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned bytes) {
    snprintf(name, bytes, "stand-in %d", *(int *)device);
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, unsigned *percent) {
    percent[0] = *(int *)device ? 20 : 80;
    percent[1] = *(int *)device ? 10 : 30;
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    *milliwatts = 400000;
    return *(int *)device ? 3 : 0;
}
const char *nvmlErrorString(int error) { return error == 2 ? "invalid argument" : "not supported"; }
int stand_in_running(void) { return is_running; }
