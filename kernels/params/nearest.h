#pragma once
#include "entry.h"

struct NearestNorms {
    u64* norms;
    const u8* pixels;
    int words, count;
};
ENTRY(Fp32, nearest_norms, NearestNorms)

struct NearestSearch {
    u64* squared;
    u32* index;
    const u8* queries;
    const u8* references;
    const u64* query_norms;
    const u64* reference_norms;
    int s, count, words;
    int per_split;  // references of a split
};
ENTRY(Fp32, nearest_search, NearestSearch)
ENTRY(TensorU8, nearest_mma, NearestSearch)

struct NearestMerge {
    u64* out_squared;
    u32* out_index;
    const u64* squared;
    const u32* index;
    int s, splits;
};
ENTRY(Fp32, nearest_merge, NearestMerge)
