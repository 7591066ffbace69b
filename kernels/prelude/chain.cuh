// A weight's gradient is summed over chains of neighbouring images of the batch: a chain's sum runs through its images, in
// order, whatever micro-batch they come in.
#pragma once

// The images of a chain among the `n` of a micro-batch.
struct Chain {
    int first, images;  // images <= 0: none of these
    bool begun;         // an earlier micro-batch has left a sum

    // `length`: images of a chain. `first_image`: index in the batch of the micro-batch's first.
    DEVICE Chain(int index, int length, int first_image, int n) {
        int from = index * length - first_image;
        begun = from < 0;
        first = max(from, 0);
        images = min(from + length, n) - first;
    }
};

// Which of the gradients of a convolution's weights a block gives: of 128 outputs and COLS channels at one tap of x, or of
// one of a shortcut's inputs.
template <int COLS>
struct WeightPart {
    int input;         // 0: x; 1, 2: the shortcut's
    int down, right;   // how far the tap shifts it
    int out, channel;  // first of the block
    int channels;      // of the input
    int row;           // words from output to output of the sums
    float* sums;       // of the block's chain, from the tap's on

    template <class P>
    DEVICE explicit WeightPart(const P& p) : input(0), down(0), right(0), channels(p.c), sums(p.partials) {
        int taps = p.kernel * p.kernel, tap = 0, blocks_o = ceil_div(p.o, MMA_TILE), blocks_c = ceil_div(p.c, COLS);
        int column = blockIdx.x / blocks_o;
        if (column < taps * blocks_c) {
            tap = column / blocks_c;
            down = tap / p.kernel - p.pad;
            right = tap % p.kernel - p.pad;
            column %= blocks_c;
        } else {
            column -= taps * blocks_c;
            bool second = column >= ceil_div(p.c1, COLS);
            column -= second ? ceil_div(p.c1, COLS) : 0;
            taps = 1;
            input = second ? 2 : 1;
            channels = second ? p.c2 : p.c1;
            sums = second ? p.partials2 : p.partials1;
        }
        out = blockIdx.x % blocks_o * MMA_TILE;
        channel = column * COLS;
        row = taps * channels;
        sums += (i64)blockIdx.z * p.o * row + tap * channels;
    }
    // Where the sum of an output and a channel lies.
    DEVICE float* at(int o, int c) const { return sums + (i64)o * row + c; }
};
