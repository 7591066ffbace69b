// Device memory: a reserved stretch of addresses from which allocations are cut one after another, those of all devices.
// An address is never handed out twice, so a stale pointer is found out, and so is one of another device.
#pragma once
#include <cstddef>
#include <string>

namespace emu {

const size_t device_space = size_t(256) << 30;  // addresses; what may be in use at once on a device is device.memory

// The device of the call or of the work under way, whose memory all that follows is.
extern unsigned on_device;

unsigned char* device_base();
// In the check build the same memory at other addresses, so that reads through an argument that only reads can be told
// from all others; otherwise p. `device_address` leads back.
void* reading_view(void* p);
const void* device_address(const void* p);
void* device_alloc(size_t bytes);  // poisoned with 0xFF; null when device.memory would be exceeded
bool device_free(void* p);         // false: not the start of a live allocation
bool in_device(const void* p, size_t bytes);  // within one live allocation
size_t device_in_use();
std::string describe_device(const void* p);  // "allocation 3 of 1024 bytes, at +1028", and whose if another device's

}  // namespace emu
