// Separable linear maps between image sizes and their transposes, as weights: what an output position sums.
// `how`: 0 none, 1 down (2x2 mean), 2 up (nearest), 3 fir_down ([1,3,3,1]/8, every second), 4 fir_up (its double, x2),
// 5 fir_pad (the filter at every position of the zero-extended image: size + 1). Song et al. 2021.
#pragma once

enum Resample { SAME = 0, DOWN = 1, UP = 2, FIR_DOWN = 3, FIR_UP = 4, FIR_PAD = 5 };

// Length of an axis of n pixels afterwards.
DEVICE int out_length(int how, int n) {
    switch (how) {
        case DOWN:
        case FIR_DOWN: return n / 2;
        case UP:
        case FIR_UP: return 2 * n;
        case FIR_PAD: return n + 1;
        default: return n;
    }
}

DEVICE float box_tap(int m) { return m == 0 || m == 1 ? 0.5f : 0.0f; }
DEVICE float fir_tap(int m) { return m < 0 || m > 3 ? 0.0f : (m == 0 || m == 3 ? 0.125f : 0.375f); }

// Weight of input i in output o along one axis.
DEVICE float resample_weight(int how, int o, int i) {
    switch (how) {
        case DOWN: return box_tap(i - 2 * o);
        case UP: return 2.0f * box_tap(o - 2 * i);
        case FIR_DOWN: return fir_tap(i - 2 * o + 1);
        case FIR_UP: return 2.0f * fir_tap(o - 2 * i + 1);
        case FIR_PAD: return fir_tap(i - o + 2);
        default: return i == o ? 1.0f : 0.0f;
    }
}

struct Span {
    int first, end;
};

DEVICE Span clipped(int first, int end, int length) { return {first < 0 ? 0 : first, end > length ? length : end}; }

// Inputs (of `length`) that may have a weight in output o. The boxes never reach beyond the border.
DEVICE Span sources_of(int how, int o, int length) {
    switch (how) {
        case DOWN: return {2 * o, 2 * o + 2};
        case UP: return {o / 2, o / 2 + 1};
        case FIR_DOWN: return clipped(2 * o - 1, 2 * o + 3, length);
        case FIR_UP: return clipped((o + 1) / 2 - 1, (o + 1) / 2 + 1, length);
        case FIR_PAD: return clipped(o - 2, o + 2, length);
        default: return {o, o + 1};
    }
}

// Outputs (of `length`) in which input i may have a weight: the transpose's sources.
DEVICE Span uses_of(int how, int i, int length) {
    switch (how) {
        case DOWN: return clipped(i / 2, i / 2 + 1, length);
        case UP: return {2 * i, 2 * i + 2};
        case FIR_DOWN: return clipped((i + 1) / 2 - 1, (i + 1) / 2 + 1, length);
        case FIR_UP: return clipped(2 * i - 1, 2 * i + 3, length);
        case FIR_PAD: return clipped(i - 1, i + 3, length);
        default: return {i, i + 1};
    }
}

// Calls f(row, column, weight) for what output (row, col) takes, or for the uses of input (row, col) if `transposed`.
// `h`, `w`: size of what is read.
template <class F>
DEVICE void taps(int how, bool transposed, int row, int col, int h, int w, F f) {
    Span rows = transposed ? uses_of(how, row, h) : sources_of(how, row, h);
    Span cols = transposed ? uses_of(how, col, w) : sources_of(how, col, w);
    for (int r = rows.first; r < rows.end; r++) {
        float wr = transposed ? resample_weight(how, r, row) : resample_weight(how, row, r);
        for (int c = cols.first; c < cols.end; c++)
            f(r, c, wr * (transposed ? resample_weight(how, c, col) : resample_weight(how, col, c)));
    }
}

// The sum over those taps of weight * value(row, column).
template <class F>
DEVICE float resampled(int how, bool transposed, int row, int col, int h, int w, F value) {
    float sum = 0.0f;
    taps(how, transposed, row, col, h, w, [&](int r, int c, float weight) { sum = fmaf(weight, value(r, c), sum); });
    return sum;
}
