// The driver's cuTensorMapEncodeTiled: makes what tensor_copy.cpp reads, and refuses what the CUDA driver API's
// documentation says of its arguments.
#include "driver.h"

#include "async.h"

namespace emu {

const int interleave_none = 0, most_swizzle = 3, most_promotion = 3;

// Of a CUtensorMapDataType; 0 of what is packed, which kernels have no use for here.
static unsigned bytes_of(int type) {
    static const unsigned char bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    return type >= 0 && type < int(sizeof bytes) ? bytes[type] : 0;
}
static bool is_float(int type) { return type >= 6; }

struct Tiled {
    int type;
    unsigned rank;
    void* base;
    const uint64_t *dims, *strides;
    const uint32_t *box, *steps;
    int interleave, swizzle, promotion, fill;

    // Why not, or nothing.
    std::string refused() const {
        auto n = [](uint64_t v) { return std::to_string(v); };
        if (compute_major() < 9) return "tensor maps are for compute capability 9.0 and newer";
        if (!bytes_of(type)) return "no element type " + std::to_string(type);
        if (rank < 1 || rank > 5) return n(rank) + " dimensions, 1 to 5 are";
        if (interleave != interleave_none) return "interleaved layouts are not known here";
        if (swizzle < 0 || swizzle > most_swizzle) return "no swizzle " + std::to_string(swizzle) + " here";
        if (promotion < 0 || promotion > most_promotion) return "no L2 promotion " + std::to_string(promotion);
        if (fill < 0 || fill > 1 || (fill && !is_float(type))) return "no fill " + std::to_string(fill);
        if (fill) return "filling with NaN is not known here";
        if (uintptr_t(base) % 16) return "the address is not a multiple of 16";
        uint64_t covered = bytes_of(type);
        for (unsigned i = 0; i < rank; i++) {
            std::string of = " of dimension " + n(i);
            if (!dims[i] || dims[i] > 1ull << 32) return "size " + n(dims[i]) + of + ", 1 to 2^32 are";
            if (!box[i] || box[i] > 256) return "box " + n(box[i]) + of + ", 1 to 256 are";
            if (!steps[i] || steps[i] > 8) return "element stride " + n(steps[i]) + of + ", 1 to 8 are";
            if (!i) {
                covered *= dims[0];
                continue;
            }
            uint64_t stride = strides[i - 1];
            std::string own = "stride " + n(stride) + of;
            if (stride % 16 || stride >= 1ull << 40) return own + " is not a multiple of 16 below 2^40";
            if (stride < covered) return own + " does not cover the " + n(covered) + " bytes within";
            covered = stride * dims[i];
        }
        uint64_t row = uint64_t(box[0]) * bytes_of(type);
        if (row % 16) return "the box's rows of " + n(row) + " bytes are not a multiple of 16";
        if (swizzle && row > 16u << swizzle) return "the box's rows of " + n(row) + " bytes are longer than the swizzle's";
        return "";
    }

    EncodedMap encoded() const {
        EncodedMap m{};
        m.mark = map_mark;
        m.base = static_cast<unsigned char*>(base);
        for (unsigned i = 0; i < rank; i++) {
            m.last[i] = uint32_t(dims[i] - 1);
            m.box[i] = uint16_t(box[i]);
            m.step[i] = uint8_t(steps[i]);
            if (i) m.stride[i - 1] = strides[i - 1];
        }
        m.rank = uint8_t(rank);
        m.element_bytes = uint8_t(bytes_of(type));
        m.swizzle = uint8_t(1 << swizzle);
        return m;
    }
};

EMU_EXPORT Result cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* base, const uint64_t* dims,
                                         const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave,
                                         int swizzle, int promotion, int fill) {
    Locked locked(driver_lock);
    const char* call = "cuTensorMapEncodeTiled: ";
    if (!map || uintptr_t(map) % 64) return refuse(InvalidValue, std::string(call) + "the map is not on 64 bytes");
    if (!dims || !box || !steps || (rank > 1 && !strides)) return refuse(InvalidValue, std::string(call) + "no array");
    Tiled tiled{type, rank, base, dims, strides, box, steps, interleave, swizzle, promotion, fill};
    std::string why = tiled.refused();
    if (!why.empty()) return refuse(InvalidValue, call + why);
    EncodedMap m = tiled.encoded();
    memset(map, 0, 128);
    memcpy(map, &m, sizeof m);
    return Success;
}

}  // namespace emu
