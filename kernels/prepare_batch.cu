// prepare_batch: which images a step sees, their pixels in [-1, 1], noise levels and noise: all functions of (seed,
// step, index in the whole batch), from a data set of bytes that stays on the device.
//
//   prepare_rows     index[n], sigma[n] (float64), out_labels[n] of the images first_image .. first_image + n of the
//                    batch
//   prepare_images   y[n, words] = pixels[index[n]] / 127.5 - 1 and noise[n, words], standard normals
//
// Launch     prepare_rows: grid ceil(n / 256). prepare_images: grid (ceil(ceil(words / 8) / 256), n), 8 elements a
//            thread. 256 threads.
// Cost       9 B an element and two Philox blocks with four Box-Muller pairs per 8: 14 MB at 512 x 32 x 32 x 3.
// Exactness  index, labels, y and noise are the CPU's bits; sigma agrees to an ulp of float64 (expm1, pow, exp).
#include "prelude/prelude.cuh"

#include "params/prepare_batch.h"

extern "C" __global__ void prepare_rows(const PrepareRows p) {
    const Step* __restrict__ step = p.step;
    int i = (int)flat_index();
    if (i >= p.n) return;
    u32 place = p.first_image + i;
    u64 seen = step->step * p.batch + place;
    u32 at = (u32)permute(seen % p.images, p.images, step->seed, p.shuffle ? seen / p.images : 0);
    p.index[i] = at;
    if (p.labels) p.out_labels[i] = p.labels[at];
    u32 stream = tag(Stream::Sigma, 0);
    double draw;
    if (p.precond == EDM) {
        float z[8];
        normals8(z, 0, place, (u32)step->step, stream, step->seed);
        draw = z[0];
    } else {
        draw = unit(philox(make_uint4(0, place, (u32)step->step, stream), step->seed).x);
    }
    p.sigma[i] = training_sigma(p.precond, draw);
}

extern "C" __global__ void prepare_images(const PrepareImages p) {
    const Step* __restrict__ step = p.step;
    int block = (int)flat_index(), image = blockIdx.y, words = p.words;
    if (block * DRAWN_ELEMENTS >= words) return;
    float z[8];
    normals8(z, block, p.first_image + image, (u32)step->step, tag(Stream::Noise, 0), step->seed);
    const u8* __restrict__ from = p.pixels + (i64)p.index[image] * words;
    for (int j = 0; j < DRAWN_ELEMENTS; j++) {
        int e = block * DRAWN_ELEMENTS + j;
        if (e >= words) return;
        i64 at = (i64)image * words + e;
        p.y[at] = __fsub_rn(__fdiv_rn((float)from[e], 127.5f), 1.0f);
        p.noise[at] = z[j];
    }
}
