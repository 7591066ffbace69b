// Shared memory of the running block: one arena, poisoned as it is handed out.
#include "machine.h"
#include "memory.h"

namespace emu {

unsigned char* shared_arena() {
    static unsigned char* bytes = static_cast<unsigned char*>(map_pages(shared_arena_bytes));
    return bytes;
}
static unsigned char* const arena = shared_arena();
// Unused bytes between two shared arrays, so that running out of one is not running into the next.
static const unsigned shared_gap = 128;

unsigned char* dynamic_shared() { return arena + block.shared[0].offset; }
uint32_t shared_address(const void* p) { return uint32_t(static_cast<const unsigned char*>(p) - arena); }

bool in_shared(const void* p, size_t bytes) {
    size_t offset = static_cast<const unsigned char*>(p) - arena;
    if (offset >= shared_arena_bytes) return false;
    static size_t last;  // accesses come in runs
    auto holds = [&](const SharedRange& range) {
        return offset >= range.offset && offset + bytes <= range.offset + range.bytes;
    };
    if (last < block.shared.size() && holds(block.shared[last])) return true;
    for (last = 0; last < block.shared.size(); last++)
        if (holds(block.shared[last])) return true;
    return false;
}

void misaligned(const void* p, size_t align, Site site) {
    size_t offset = static_cast<const unsigned char*>(p) - arena;
    std::string where = offset < shared_arena_bytes ? "shared memory, at +" + std::to_string(offset) : describe_device(p);
    fail("misaligned: an access of " + std::to_string(align) + " bytes by " + text(running()) + " to " + where + ", at " +
         text(site));
}

unsigned take_shared(size_t bytes, size_t align) {
    unsigned offset = (block.shared_top + align - 1) & ~(align - 1);
    block.shared_bytes += unsigned((bytes + 15) & ~size_t(15));
    block.shared.push_back({offset, unsigned(bytes)});
    block.shared_top = offset + unsigned(bytes) + shared_gap;
    memset(arena + offset, 0xff, bytes);
    return offset;
}

void* static_shared(SharedSlot* slot, size_t bytes, size_t align) {
    if (slot->block != block.serial) {
        if (bytes > (48 << 10) || block.shared_bytes + bytes > device.shared_limit)
            fail("shared memory: " + std::to_string(block.shared_bytes + bytes) + " bytes wanted, the limit is " +
                 std::to_string(device.shared_limit) + " and 48 KB for static arrays");
        slot->offset = take_shared(bytes, align);
        slot->block = block.serial;
    }
    return arena + slot->offset;
}

}  // namespace emu
