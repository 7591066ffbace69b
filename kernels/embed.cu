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
// The bias's gradient is sum_rows(dbias, dy, n, d); e's is dy (scaled_add). Where dtable is set, wgrad_reduce with
// chunks = 0 fills it with zeros first: a batch touches few rows.
// Arguments  noise_embed(e, sigma, freqs or null, n, channels, precond); label_embed_fwd(y, e, labels, table, bias, n,
//            d, scale); label_rows(next, head, labels, n); label_embed_bwd(dtable, dy, labels, next, head, d,
//            scale); scale = sqrt(label_dim) rounded once.
// Launch     noise_embed: grid ceil(n half / 256). label_embed_fwd: grid ceil(n d / 256). label_rows: grid
//            ceil(n / 256). label_embed_bwd: grid (ceil(d / 256), n). 256 threads.
// Cost       bytes of the batch's rows; label_rows compares n^2 / 2 labels, 0.1 M at n = 512.
// Exactness  repeated rows are summed in batch order: deterministic, no atomics.
#include "prelude/prelude.cuh"

extern "C" __global__ void noise_embed(float* e, const double* __restrict__ sigma, const float* __restrict__ freqs,
                                       int n, int channels, int precond) {
    int half = channels / 2, i = (int)flat_index();
    if (i >= n * half) return;
    int image = i / half, k = i % half;
    double c_noise = coefficients(precond, sigma[image]).noise;
    double f = freqs ? 6.283185307179586 * (double)freqs[k] : pow(1e-4, (double)k / (double)(max(half, 2) - 1));
    double angle = f * c_noise;
    float* to = e + (i64)image * channels + k;
    to[0] = (float)sin(angle);
    to[half] = (float)cos(angle);
}
EMM_KERNEL(noise_embed)

extern "C" __global__ void label_embed_fwd(float* y, const float* __restrict__ e, const u32* __restrict__ labels,
                                           const float* __restrict__ table, const float* __restrict__ bias, int n,
                                           int d, float scale) {
    i64 i = flat_index();
    if (i >= (i64)n * d) return;
    int image = (int)(i / d), k = (int)(i % d);
    y[i] = fmaf(scale, table[(i64)labels[image] * d + k], e[i]) + bias[k];
}
EMM_KERNEL(label_embed_fwd)

extern "C" __global__ void label_rows(int* next, int* head, const u32* __restrict__ labels, int n) {
    int i = (int)flat_index();
    if (i >= n) return;
    u32 label = labels[i];
    int before = 0, after = i + 1;
    while (before < i && labels[before] != label) before++;
    while (after < n && labels[after] != label) after++;
    head[i] = before == i;
    next[i] = after < n ? after : -1;
}
EMM_KERNEL(label_rows)

extern "C" __global__ void label_embed_bwd(float* dtable, const float* __restrict__ dy, const u32* __restrict__ labels,
                                           const int* __restrict__ next, const int* __restrict__ head, int d,
                                           float scale) {
    int k = (int)flat_index(), first = blockIdx.y;
    if (k >= d || !head[first]) return;
    float* row = dtable + (i64)labels[first] * d + k;
    float sum = *row;
    for (int image = first; image >= 0; image = next[image]) sum = fmaf(scale, dy[(i64)image * d + k], sum);
    *row = sum;
}
EMM_KERNEL(label_embed_bwd)
