//! The loops that kernels are measured against do what they say.

use isonorm_kernels::bandwidth::{Stores, copy, read, write};
use isonorm_kernels::{InstructionSet, with_instruction_set};

/// Every instruction set, some lengths (none, tails, several shares), one thread and more, every kind of store.
fn for_all(body: impl Fn(usize, usize, Stores)) {
    for set in InstructionSet::ALL {
        with_instruction_set(set, || {
            for len in [0, 1, 15, 16, 17, 1000, 100_003] {
                for threads in [1, 2, 3] {
                    Stores::ALL.into_iter().for_each(|stores| body(len, threads, stores));
                }
            }
        });
    }
}

#[test]
fn copies_and_writes_reach_every_element_and_no_other() {
    for_all(|len, threads, stores| {
        // Not at the start of a cache line.
        let from: Vec<f32> = (0..len + 2).map(|i| i as f32).collect();
        let mut to = vec![-1.0; len + 2];
        copy(&from[1..=len], &mut to[1..=len], threads, 2, stores);
        assert!(to[1..=len] == from[1..=len], "{len} elements, {threads} threads");
        assert_eq!((to[0], to[len + 1]), (-1.0, -1.0));
        write(&mut to[1..=len], 3.0, threads, 2, stores);
        assert!(to[1..=len].iter().all(|&x| x == 3.0), "{len} elements, {threads} threads");
        assert_eq!((to[0], to[len + 1]), (-1.0, -1.0));
    });
}

#[test]
fn a_read_meets_every_element_once() {
    for_all(|len, threads, _| {
        let from: Vec<f32> = (0..len).map(|i| (i % 7) as f32).collect();
        let sum: usize = (0..len).map(|i| i % 7).sum();
        assert_eq!(read(&from, threads, 2), sum as f64, "{len} elements, {threads} threads");
    });
}

#[test]
fn many_callers_share_the_threads() {
    let from: Vec<f32> = (0..100_000).map(|i| (i % 5) as f32).collect();
    let expected = read(&from, 1, 1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..200).for_each(|_| assert_eq!(read(&from, 3, 1), expected)));
        }
    });
}
