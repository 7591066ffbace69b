//! Where in the arena each piece lies, so that those that live at the same time don't overlap.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Words that are needed from step `first` to step `last`, both included.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    pub words: usize,
    pub first: usize,
    pub last: usize,
}

/// Offsets are multiples of this many words.
const ALIGN: usize = 16;

/// Gives each piece the lowest offset free during its whole life, the largest first and of equals the earlier one;
/// returns the offsets and the arena's words. Time grows hardly faster than the number of pieces.
pub fn place(pieces: &[Life]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|&i| (Reverse(pieces[i].words), i));
    let mut offsets = vec![0; pieces.len()];
    let mut taken = Taken::new(pieces.iter().map(|p| p.last + 1).max().unwrap_or(1));
    let mut end = 0;
    for i in order {
        let piece = pieces[i];
        let at = taken.lowest_free(piece);
        taken.take(piece, at);
        offsets[i] = at;
        end = end.max(at + piece.words);
    }
    (offsets, end)
}

/// What is taken at which steps: a binary tree over the steps, whose node 1 spans all of them and whose nodes 2k and
/// 2k + 1 span the halves of k's.
struct Taken {
    /// Nodes of the lowest row: a power of two.
    leaves: usize,
    /// Of each node, what is taken during its whole span by pieces that no node above stands for.
    throughout: Vec<Ranges>,
    /// Of each node, what is taken at some step of its span by pieces that no node above stands for.
    sometime: Vec<Ranges>,
}

impl Taken {
    fn new(steps: usize) -> Self {
        let leaves = steps.next_power_of_two();
        let none = || vec![Ranges::default(); 2 * leaves];
        Taken { leaves, throughout: none(), sometime: none() }
    }

    /// The nodes whose spans together are a piece's life.
    fn spans(&self, piece: Life) -> Vec<usize> {
        let (mut from, mut to) = (self.leaves + piece.first, self.leaves + piece.last + 1);
        let mut nodes = Vec::new();
        while from < to {
            if from % 2 == 1 {
                nodes.push(from);
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                nodes.push(to);
            }
            (from, to) = (from / 2, to / 2);
        }
        nodes
    }

    fn lowest_free(&self, piece: Life) -> usize {
        let spans = self.spans(piece);
        let mut above: Vec<usize> = spans.iter().flat_map(|&node| ancestors(node)).collect();
        above.sort_unstable();
        above.dedup();
        let sometime = spans.iter().map(|&node| &self.sometime[node]);
        let throughout = above.iter().map(|&node| &self.throughout[node]);
        let all: Vec<&Ranges> = sometime.chain(throughout).filter(|r| !r.0.is_empty()).collect();
        let mut at = 0;
        loop {
            let free = all.iter().fold(at, |at, ranges| ranges.lowest_free(at, piece.words));
            if free == at {
                return at;
            }
            at = free;
        }
    }

    fn take(&mut self, piece: Life, at: usize) {
        let end = at + piece.words.next_multiple_of(ALIGN);
        for node in self.spans(piece) {
            self.throughout[node].add(at, end);
            self.sometime[node].add(at, end);
            ancestors(node).for_each(|above| self.sometime[above].add(at, end));
        }
    }
}

fn ancestors(node: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(node / 2), |&n| Some(n / 2)).take_while(|&n| n > 0)
}

/// Ranges of words, from → to; none touches another.
#[derive(Clone, Default)]
struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    fn add(&mut self, mut from: usize, mut to: usize) {
        while let Some((&start, &end)) = self.0.range(..=to).next_back() {
            if end < from {
                break;
            }
            if start <= from && to <= end {
                return;
            }
            self.0.remove(&start);
            (from, to) = (from.min(start), to.max(end));
        }
        self.0.insert(from, to);
    }

    /// The lowest offset from `at` on with so many free words.
    fn lowest_free(&self, mut at: usize, words: usize) -> usize {
        if let Some((_, &end)) = self.0.range(..=at).next_back() {
            at = at.max(end);
        }
        for (&start, &end) in self.0.range(at..) {
            if at + words <= start {
                break;
            }
            at = end;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::philox;

    /// The same rule as it reads: all that is placed is looked through for each piece.
    fn plainly(pieces: &[Life]) -> (Vec<usize>, usize) {
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.sort_by_key(|&i| (Reverse(pieces[i].words), i));
        let (mut offsets, mut placed, mut end) = (vec![0; pieces.len()], Vec::<usize>::new(), 0);
        for i in order {
            let p = pieces[i];
            let together = |&&j: &&usize| pieces[j].first <= p.last && p.first <= pieces[j].last;
            let mut busy: Vec<_> = (placed.iter().filter(together))
                .map(|&j| (offsets[j], offsets[j] + pieces[j].words.next_multiple_of(ALIGN)))
                .collect();
            busy.sort_unstable();
            let mut at = 0;
            for (from, to) in busy {
                if at + p.words <= from {
                    break;
                }
                at = at.max(to);
            }
            offsets[i] = at;
            end = end.max(at + p.words);
            placed.push(i);
        }
        (offsets, end)
    }

    #[test]
    fn pieces_lie_where_looking_through_all_of_them_puts_them() {
        assert_eq!(place(&[]), (vec![], 0));
        for seed in 0..300 {
            let draw = |i: u32, k: usize| philox([i, 0, 0, 0], seed)[k] as usize;
            let (count, steps) = (1 + draw(u32::MAX, 0) % 120, 1 + draw(u32::MAX, 1) % 70);
            let piece = |i: u32| {
                // Short lives, lives as of activations that wait for their backward, and any.
                let first = draw(i, 0) % steps;
                let last = match draw(i, 1) % 3 {
                    0 => (first + draw(i, 2) % 3).min(steps - 1),
                    1 => first.max(steps - 1 - first),
                    _ => first + draw(i, 2) % (steps - first),
                };
                let words = [1, 16, 17, 100, 100, 1000, 1 + draw(i, 3) % 300][draw(i, 3) % 7];
                Life { words, first, last }
            };
            let pieces: Vec<Life> = (0..count as u32).map(piece).collect();
            assert_eq!(place(&pieces), plainly(&pieces), "seed {seed}");
        }
    }

    /// A hundred thousand pieces, as of a network a thousand blocks deep; looking through all would take minutes.
    #[test]
    fn many_pieces_are_placed_at_once() {
        let n = 50_000;
        let kept =
            (0..n).map(|k| Life { words: 4096 >> (k * 3 / n), first: k, last: 2 * n - 1 - k });
        let passing = (0..n).map(|k| Life { words: 1000 + k % 7, first: 2 * k, last: 2 * k + 1 });
        let pieces: Vec<Life> = kept.chain(passing).collect();
        let (offsets, end) = place(&pieces);
        let most: usize = pieces[..n].iter().map(|p| p.words).sum();
        assert!(offsets.len() == 2 * n && (most..most + 2048).contains(&end), "{end}");
    }
}
