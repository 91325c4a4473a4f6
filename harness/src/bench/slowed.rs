//! A planted slowdown: a contender that works longer than it has to, by a known part of its time.
//!
//! It is how a gate shows that it finds slowdowns. Nothing that was measured is altered: the time is really spent.

use std::time::{Duration, Instant};

use super::Timed;

/// A contender whose calls take longer.
pub struct Slowed<T> {
    inner: T,
    part: f64,
    /// What is still to be spent; below zero if too much was.
    owed: f64,
}

impl<T: Timed> Slowed<T> {
    /// Makes every call of a contender longer by `part` of its time.
    pub fn new(inner: T, part: f64) -> Slowed<T> {
        Slowed { inner, part, owed: 0.0 }
    }
}

impl<T: Timed> Timed for Slowed<T> {
    fn call(&mut self) -> Result<(), String> {
        let started = Instant::now();
        self.inner.call()?;
        let done = started.elapsed();
        // Reading the clock has a cost too: what was spent too much is taken off the next time.
        self.owed += self.part * done.as_secs_f64();
        let until = done + Duration::from_secs_f64(self.owed.max(0.0));
        let mut spent = done;
        while spent < until {
            std::hint::spin_loop();
            spent = started.elapsed();
        }
        self.owed -= (spent - done).as_secs_f64();
        Ok(())
    }

    fn has_surcharge(&self) -> bool {
        self.inner.has_surcharge()
    }

    fn surcharge(&mut self) -> Result<(), String> {
        self.inner.surcharge()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper(Duration);

    impl Timed for Sleeper {
        fn call(&mut self) -> Result<(), String> {
            std::thread::sleep(self.0);
            Ok(())
        }
    }

    #[test]
    fn what_is_owed_is_spent() {
        let mut slowed = Slowed::new(Sleeper(Duration::from_millis(2)), 0.5);
        for _ in 0..5 {
            slowed.call().expect("it sleeps");
            // The clock counts whole nanoseconds.
            assert!(slowed.owed <= 1e-9, "all of it was spent: {}", slowed.owed);
        }
        let mut free = Slowed::new(Sleeper(Duration::ZERO), 0.0);
        free.call().expect("it sleeps");
        assert_eq!(free.owed, 0.0);
    }
}
