#pragma once
#include "entry.h"

template <class T>
struct FirFwd {
    T* y;
    const T* x;
    int n, h, w, c;
};
ENTRY(Fp32, fir_fwd, FirFwd<float>)
ENTRY(Fp32, fir_fwd_bf16, FirFwd<bf16>)

template <class T>
struct FirBwd {
    T* dx;
    const T* dy;
    int n, h, w, c, add;
};
ENTRY(Fp32, fir_bwd, FirBwd<float>)
ENTRY(Fp32, fir_bwd_bf16, FirBwd<bf16>)
