// What a captured training step reads from device memory instead of its parameters, filled by the host once per log
// interval for every step of it (`step_next` moves on). All in float64 on the host, rounded once.
#pragma once

struct Step {
    u64 seed, step;
    float decay;       // weight decay
    float rate;        // lr / (1 - beta1^count)
    float beta2;       // decay rate of the second moment
    float beta2_rest;  // 1 - beta2
    float root;        // 1 / (1 - beta2^count)
    float ema;         // EMA rate
    float ema_rest;    // 1 - EMA rate
    u32 scrub;         // replace NaN by 0 and +-inf by +-1e5 in the gradient
};
