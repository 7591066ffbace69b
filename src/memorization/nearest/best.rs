//! The best few of each query while many threads look for better ones.

use crate::device::cpu::dots::{ROWS, Word};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

/// A reference image near a query; ordered by distance, then index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// Squared L2 distance in pixel units.
    pub squared: u64,
    pub index: u32,
}

impl Neighbour {
    /// There is no such image.
    pub const NONE: Neighbour = Neighbour { squared: u64::MAX, index: u32::MAX };
}

/// The `k` nearest of each query so far. What it ends with does not depend on the order of offers: equal
/// distances go by index.
pub struct Best<'a> {
    /// In ascending order, always `k`.
    lists: Vec<Mutex<Vec<Neighbour>>>,
    /// The largest key that can still be among the best.
    limits: Vec<[AtomicI64; ROWS]>,
    limit_of: LimitOf<'a>,
}

/// From a query and the squared distance of its k-th best to the largest key worth a look.
type LimitOf<'a> = Box<dyn Fn(usize, u64) -> i64 + Sync + 'a>;

impl<'a> Best<'a> {
    pub fn new(k: usize, queries: usize, limit_of: LimitOf<'a>) -> Self {
        let tiles = queries.div_ceil(ROWS);
        // No key is worth a look for the rows that fill up the last tile.
        let limit = |row: usize| AtomicI64::new(if row < queries { i64::MAX } else { i64::MIN });
        Best {
            lists: (0..queries).map(|_| Mutex::new(vec![Neighbour::NONE; k])).collect(),
            limits: (0..tiles).map(|t| std::array::from_fn(|r| limit(t * ROWS + r))).collect(),
            limit_of,
        }
    }

    /// The limits of a tile of queries.
    pub fn limits(&self, tile: usize) -> [i64; ROWS] {
        std::array::from_fn(|r| self.limits[tile][r].load(Ordering::Relaxed))
    }

    /// As [`limits`](Self::limits), for keys of 32 bits.
    pub fn limits_32(&self, tile: usize) -> Word {
        self.limits(tile).map(|l| l.clamp(i32::MIN as i64, i32::MAX as i64) as i32)
    }

    /// The largest squared distance that can still be among the best of `query`.
    pub fn worst(&self, query: usize) -> u64 {
        self.list(query).last().map_or(0, |n| n.squared)
    }

    fn list(&self, query: usize) -> std::sync::MutexGuard<'_, Vec<Neighbour>> {
        // A panic elsewhere ends the search as a whole.
        self.lists[query].lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes `found` in if it is among the best. An image may be offered again.
    pub fn offer(&self, query: usize, found: Neighbour) {
        let mut list = self.list(query);
        let place = list.partition_point(|n| *n < found);
        if place == list.len() || list[place] == found {
            return;
        }
        list.insert(place, found);
        list.pop();
        if let Some(worst) = list.last().filter(|n| **n != Neighbour::NONE) {
            let limit = (self.limit_of)(query, worst.squared);
            self.limits[query / ROWS][query % ROWS].store(limit, Ordering::Relaxed);
        }
    }

    /// The best of each query, in order.
    pub fn into_lists(self) -> impl Iterator<Item = Vec<Neighbour>> {
        self.lists.into_iter().map(|l| l.into_inner().unwrap_or_else(|e| e.into_inner()))
    }
}
