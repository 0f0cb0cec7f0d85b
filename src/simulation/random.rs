//! Random choices that a seed reproduces: SplitMix64 (Steele, Lea, Flood 2014), shared by everything in one schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source of random choices. Clones share it.
#[derive(Clone)]
pub struct Random(Arc<AtomicU64>);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `from..to`.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    /// True with this probability in percent.
    pub fn percent(&self, times: u64) -> bool {
        self.between(0, 100) < times
    }

    pub fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }

    pub fn size(&self, from: usize, to: usize) -> usize {
        usize::try_from(self.between(from as u64, to as u64)).expect("a small number")
    }
}
