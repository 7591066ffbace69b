// embed: what the network is told besides the image: its noise level and its label.
//
//   noise_embed       e[n, channels] = [sin a, cos a] of a = 1e-4^(i / (half - 1)) c_noise(sigma[n]), or, with `freqs`,
//                     a = 2 pi freqs[i] c_noise; half = channels / 2; angles in float64, rounded once
//   label_embed_fwd   y[n, d] = e[n, d] + table[label[n], d] * sqrt(label_dim) + bias[d]
//   label_embed_bwd   dtable[l, d] (=|+=) sqrt(label_dim) * sum of dy[n, d] over the images n of label l, in batch
//                     order
//   label_rows        lists each label's images first: next[n] = the next image of n's label or -1, head[n] = is the
//                     first
//
// The bias's gradient is sum_rows(dbias, dy, n, d); e's is dy (scaled_add). Where dtable is set, sum_chains with
// chains = 0 fills it with zeros first: a batch touches few rows.
// Launch     noise_embed: grid ceil(n half / 256). label_embed_fwd: grid ceil(n d / 256). label_rows: grid
//            ceil(n / 256). label_embed_bwd: grid (ceil(d / 256), n). 256 threads.
// Cost       bytes of the batch's rows; label_rows compares n^2 / 2 labels, 0.1 M at n = 512.
// Exactness  repeated rows are summed in batch order: deterministic, no atomics.
#include "prelude/prelude.cuh"

#include "params/embed.h"

extern "C" __global__ void noise_embed(const NoiseEmbed p) {
    int half = p.channels / 2, i = (int)flat_index();
    if (i >= p.n * half) return;
    int image = i / half, k = i % half;
    double c_noise = coefficients(p.precond, p.sigma[image]).noise;
    double f = p.freqs ? 6.283185307179586 * (double)p.freqs[k] : pow(1e-4, (double)k / (double)(max(half, 2) - 1));
    double angle = f * c_noise;
    float* to = p.e + (i64)image * p.channels + k;
    to[0] = (float)sin(angle);
    to[half] = (float)cos(angle);
}

extern "C" __global__ void label_embed_fwd(const LabelEmbedFwd p) {
    i64 i = flat_index();
    if (i >= (i64)p.n * p.d) return;
    int image = (int)(i / p.d), k = (int)(i % p.d);
    p.y[i] = fmaf(p.scale, p.table[(i64)p.labels[image] * p.d + k], p.e[i]) + p.bias[k];
}

extern "C" __global__ void label_rows(const LabelRows p) {
    const u32* labels = p.labels;
    int i = (int)flat_index(), n = p.n;
    if (i >= n) return;
    u32 label = labels[i];
    int before = 0, after = i + 1;
    while (before < i && labels[before] != label) before++;
    while (after < n && labels[after] != label) after++;
    p.head[i] = before == i;
    p.next[i] = after < n ? after : -1;
}

extern "C" __global__ void label_embed_bwd(const LabelEmbedBwd p) {
    int k = (int)flat_index(), first = blockIdx.y, d = p.d;
    if (k >= d || !p.head[first]) return;
    float* row = p.dtable + (i64)p.labels[first] * d + k;
    float sum = *row;
    for (int image = first; image >= 0; image = p.next[image]) sum = fmaf(p.scale, p.dy[(i64)image * d + k], sum);
    *row = sum;
}
