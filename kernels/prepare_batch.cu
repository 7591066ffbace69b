// prepare_batch: which images a step sees, their pixels in [-1, 1], noise levels and noise: all functions of (seed,
// step, index in the whole batch), from a data set of bytes that stays on the device.
//
//   prepare_rows     index[n], sigma[n] (float64), out_labels[n] of the images first_image .. first_image + n of the
//                    batch
//   prepare_images   y[n, words] = pixels[index[n]] / 127.5 - 1 and noise[n, words], standard normals
//
// Arguments  prepare_rows(index, sigma, out_labels, labels, step, n, images, batch, first_image, shuffle, precond):
//            labels null for none; batch = images of the whole batch; shuffle 0 keeps epoch 0's order for ever.
//            prepare_images(y, noise, index, pixels, step, words, first_image): words = h w c of one image. `step`: the
//            Step on the device.
// Launch     prepare_rows: grid ceil(n / 256). prepare_images: grid (ceil(ceil(words / 8) / 256), n), 8 elements a
//            thread. 256 threads.
// Cost       9 B an element and two Philox blocks with four Box-Muller pairs per 8: 14 MB at 512 x 32 x 32 x 3.
// Exactness  index, labels, y and noise are the CPU's bits; sigma agrees to an ulp of float64 (expm1, pow, exp).
#include "prelude/prelude.cuh"

extern "C" __global__ void prepare_rows(u32* index, double* sigma, u32* out_labels, const u32* __restrict__ labels,
                                        const Step* __restrict__ step, int n, u32 images, u32 batch, u32 first_image,
                                        int shuffle, int precond) {
    int i = (int)flat_index();
    if (i >= n) return;
    u32 place = first_image + i;
    u64 seen = step->step * batch + place;
    u32 at = (u32)permute(seen % images, images, step->seed, shuffle ? seen / images : 0);
    index[i] = at;
    if (labels) out_labels[i] = labels[at];
    u32 stream = tag(Stream::Sigma, 0);
    double draw;
    if (precond == EDM) {
        float z[8];
        normals8(z, 0, place, (u32)step->step, stream, step->seed);
        draw = z[0];
    } else {
        draw = unit(philox(make_uint4(0, place, (u32)step->step, stream), step->seed).x);
    }
    sigma[i] = training_sigma(precond, draw);
}
EMM_KERNEL(prepare_rows)

extern "C" __global__ void prepare_images(float* y, float* noise, const u32* __restrict__ index,
                                          const u8* __restrict__ pixels, const Step* __restrict__ step, int words,
                                          u32 first_image) {
    int block = (int)flat_index(), image = blockIdx.y;
    if (block * 8 >= words) return;
    float z[8];
    normals8(z, block, first_image + image, (u32)step->step, tag(Stream::Noise, 0), step->seed);
    const u8* from = pixels + (i64)index[image] * words;
    for (int j = 0; j < 8; j++) {
        int e = block * 8 + j;
        if (e >= words) return;
        i64 at = (i64)image * words + e;
        y[at] = __fsub_rn(__fdiv_rn((float)from[e], 127.5f), 1.0f);
        noise[at] = z[j];
    }
}
EMM_KERNEL(prepare_images)
