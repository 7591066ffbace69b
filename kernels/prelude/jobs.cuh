// Launches of many jobs: what a kernel takes has `jobs`, of which `count` are given, each with its `first_block`.
#pragma once

// Index of the job that this block is of: the last one that begins no later.
template <class P>
DEVICE u32 job_of_block(const P& p) {
    u32 first = 0, end = p.count;
    while (end - first > 1) {
        u32 middle = (first + end) / 2;
        // Mutant, packs::copies_of_any_form_are_made_by_few_launches (pack.cu): `<=` reads `<`.
        (p.jobs[middle].first_block <= blockIdx.x ? first : end) = middle;
    }
    return first;
}
