//! Python's `random.seed(S)` and `random.randint(0, C − 1)`, bit for bit: the random labels of the paper.
//!
//! Mersenne Twister MT19937 with `init_by_array` (Matsumoto & Nishimura 1998), and CPython's rejection of
//! draws that are too large.

const N: usize = 624;
const M: usize = 397;

/// The state of Python's `random` module.
pub struct PythonRandom {
    state: [u32; N],
    next: usize,
}

impl PythonRandom {
    /// `random.seed(seed)` for an integer.
    pub fn new(seed: u64) -> Self {
        let key: &[u32] = &[seed as u32, (seed >> 32) as u32];
        let key = if key[1] == 0 { &key[..1] } else { key };
        let mut s = [0_u32; N];
        s[0] = 19_650_218;
        for i in 1..N {
            s[i] = mix(s[i - 1], 1_812_433_253).wrapping_add(i as u32);
        }
        let mut i = 1;
        let advance = |s: &mut [u32; N], i: usize| {
            if i + 1 < N {
                return i + 1;
            }
            s[0] = s[N - 1];
            1
        };
        for j in (0..key.len()).cycle().take(N.max(key.len())) {
            let mixed = s[i] ^ mix(s[i - 1], 1_664_525);
            s[i] = mixed.wrapping_add(key[j]).wrapping_add(j as u32);
            i = advance(&mut s, i);
        }
        for _ in 0..N - 1 {
            s[i] = (s[i] ^ mix(s[i - 1], 1_566_083_941)).wrapping_sub(i as u32);
            i = advance(&mut s, i);
        }
        s[0] = 0x8000_0000;
        PythonRandom { state: s, next: N }
    }

    /// 32 random bits.
    fn word(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let y = self.state[i] & 0x8000_0000 | self.state[(i + 1) % N] & 0x7FFF_FFFF;
                let odd = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ y >> 1 ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9D2C_5680;
        y ^= y << 15 & 0xEFC6_0000;
        y ^ y >> 18
    }

    /// `random.randint(0, n − 1)` for n ≥ 1.
    pub fn below(&mut self, n: u32) -> u32 {
        let bits = u32::BITS - n.leading_zeros();
        loop {
            let draw = self.word() >> (u32::BITS - bits);
            if draw < n {
                return draw;
            }
        }
    }
}

fn mix(word: u32, factor: u32) -> u32 {
    (word ^ word >> 30).wrapping_mul(factor)
}
