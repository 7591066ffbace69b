// Preconditioning (Karras et al. 2022, Table 1), in float64: D = c_skip x + c_out F(c_in x; c_noise).
// `precond` is 0 VP, 1 VE, 2 EDM everywhere. The same formulas as src/ops/precondition.rs; the GPU's log1p, expm1, pow
// and log may differ from the CPU's in the last bit of float64.
#pragma once

enum Precond { VP = 0, VE = 1, EDM = 2 };

struct Coefficients {
    double skip, out, input, noise;
};

DEVICE Coefficients coefficients(int precond, double sigma) {
    double s2 = sigma * sigma;
    if (precond == VP) {
        // t of 19.9/2 t^2 + 0.1 t = ln(1 + sigma^2), written without the difference of near-equal roots.
        double lifted = log1p(s2), root = sqrt(0.1 * 0.1 + 2.0 * 19.9 * lifted);
        return {1.0, -sigma, 1.0 / sqrt(s2 + 1.0), 999.0 * (2.0 * lifted / (root + 0.1))};
    }
    if (precond == VE) return {1.0, sigma, 1.0, log(0.5 * sigma)};
    double total = s2 + 0.25;
    return {0.25 / total, sigma * 0.5 / sqrt(total), 1.0 / sqrt(total), log(sigma) / 4.0};
}

// The loss's weight of a noise level.
DEVICE double loss_weight(int precond, double sigma) {
    double s2 = sigma * sigma;
    return precond == EDM ? (s2 + 0.25) / (s2 * 0.25) : 1.0 / s2;
}

// A training noise level from a uniform number in (0, 1) (VP, VE) or a standard normal (EDM).
DEVICE double training_sigma(int precond, double draw) {
    if (precond == VP) {
        double t = 1.0 + draw * (1e-5 - 1.0);
        return sqrt(expm1(0.5 * 19.9 * t * t + 0.1 * t));
    }
    return precond == VE ? 0.02 * pow(5000.0, draw) : exp(1.2 * draw - 1.2);
}
