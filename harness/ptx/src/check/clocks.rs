//! Which accesses of a block's (or cluster's) threads are ordered: vector clocks.
//!
//! Every thread counts its own time; what it does at time c happens before another thread's access if that thread has
//! learnt of time c by a barrier (Lamport's happens-before; the representation follows Flanagan and Freund, "FastTrack",
//! 2009). A barrier of a whole block is the common case, so it is kept as one number, the block's `floor`.

use std::rc::Rc;

/// What a barrier hands from those who arrive to those who wait.
#[derive(Clone, Default)]
pub(crate) struct Gathered {
    times: Vec<u32>,
    /// For each block: the floor of those of its threads that have arrived.
    floors: Vec<u32>,
    /// The knowledge joined last, to join it once only.
    joined: Option<Rc<Vec<u32>>>,
}

/// The clocks of a group: a cluster's blocks, `threads` each.
#[derive(Default)]
pub(crate) struct Clocks {
    /// Threads of a block.
    threads: usize,
    /// Each thread's own time, from 1.
    time: Vec<u32>,
    /// For each block: its threads know all of each other up to this time.
    floor: Vec<u32>,
    /// What a thread knows beyond that of all threads of the group.
    known: Vec<Option<Rc<Vec<u32>>>>,
}

impl Clocks {
    pub fn reset(&mut self, blocks: usize, threads: usize) {
        *self = Self {
            threads,
            time: vec![1; blocks * threads],
            floor: vec![0; blocks],
            known: vec![None; blocks * threads],
        };
    }

    #[inline]
    pub fn time(&self, thread: usize) -> u32 {
        self.time[thread]
    }

    /// Whether what `other` did at `time` happens before what `me` does now.
    #[inline]
    pub fn ordered(&self, other: usize, time: u32, me: usize) -> bool {
        let block = other / self.threads;
        other == me
            || (block == me / self.threads && time <= self.floor[block])
            || self.known[me].as_ref().is_some_and(|known| time <= known[other])
    }

    /// Whether what anyone did until `time` surely happens before what anyone does now. May say no where the truth is yes.
    #[inline]
    pub fn all_ordered(&self, time: u32) -> bool {
        self.floor.len() == 1 && time <= self.floor[0]
    }

    /// All threads of a block meet.
    pub fn meet_block(&mut self, block: usize) {
        let range = block * self.threads..(block + 1) * self.threads;
        // Knowledge of other blocks is shared out; within the block the floor says it all.
        let mut all = None;
        if self.floor.len() > 1 && self.known[range.clone()].iter().any(Option::is_some) {
            all = Some(self.of_block(block));
        }
        self.known[range.clone()].fill(all);
        let now = self.time[range.clone()].iter().copied().max().unwrap_or(0);
        self.floor[block] = now;
        self.time[range].fill(now + 1);
    }

    /// Some threads meet.
    pub fn meet(&mut self, threads: impl Iterator<Item = usize> + Clone) {
        let mut gathered = Gathered::default();
        threads.clone().for_each(|t| self.release(t, &mut gathered));
        let all = self.finish(&mut gathered);
        threads.for_each(|t| self.known[t] = Some(all.clone()));
    }

    /// `thread` arrives: `gathered` learns what it did and knew until now.
    pub fn release(&mut self, thread: usize, gathered: &mut Gathered) {
        self.join(thread, gathered);
        self.time[thread] += 1;
    }

    fn join(&self, thread: usize, gathered: &mut Gathered) {
        if gathered.times.is_empty() {
            gathered.times = vec![0; self.time.len()];
            gathered.floors = vec![0; self.floor.len()];
        }
        if let Some(known) = &self.known[thread]
            && !gathered.joined.as_ref().is_some_and(|j| Rc::ptr_eq(j, known))
        {
            gathered.times.iter_mut().zip(known.iter()).for_each(|(t, k)| *t = (*t).max(*k));
            gathered.joined = Some(known.clone());
        }
        let block = thread / self.threads;
        gathered.floors[block] = gathered.floors[block].max(self.floor[block]);
        gathered.times[thread] = gathered.times[thread].max(self.time[thread]);
    }

    /// All that `gathered` has heard of, for [`Clocks::acquire`]; it is empty afterwards.
    pub fn finish(&self, gathered: &mut Gathered) -> Rc<Vec<u32>> {
        let Gathered { mut times, floors, .. } = std::mem::take(gathered);
        times.resize(self.time.len(), 0);
        for (of_block, floor) in times.chunks_mut(self.threads).zip(floors) {
            of_block.iter_mut().for_each(|t| *t = (*t).max(floor));
        }
        Rc::new(times)
    }

    /// What the threads of a block know between them.
    pub fn of_block(&self, block: usize) -> Rc<Vec<u32>> {
        let mut gathered = Gathered::default();
        (block * self.threads..(block + 1) * self.threads).for_each(|t| self.join(t, &mut gathered));
        self.finish(&mut gathered)
    }

    /// `thread` has waited for a barrier that gathered `all`.
    pub fn acquire(&mut self, thread: usize, all: &Rc<Vec<u32>>) {
        self.known[thread] = Some(match self.known[thread].take() {
            Some(own) if !Rc::ptr_eq(&own, all) && own.iter().zip(all.iter()).any(|(a, b)| a > b) => {
                Rc::new(own.iter().zip(all.iter()).map(|(a, b)| *a.max(b)).collect())
            }
            _ => all.clone(),
        });
    }
}
