//! The door for strangers' libraries. Each fault is compiled into `planted.c` with the system's compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use isonorm_harness::run::{Conduct, Contender, Limits, Origin, Outcome, Place, Plugin, Request, RunError, Runner};
use tempfile::TempDir;

use super::{assert_well_behaved, conduct, in_place, rms_norm, with_gaps, with_prelude};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("harness lies in the repository").join(path)
}

/// Compiles a library. It lies in the folder, which is deleted when dropped.
fn compile(source: &Path, defines: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let library = folder.path().join("libplanted.so");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg("-I").arg(repository("kernels/include"));
    cc.args(defines.iter().map(|(name, value)| format!("-D{name}={value}"))).arg(source).args(["-lm", "-pthread"]);
    let output = cc.output().expect("a C compiler called cc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, library)
}

fn limits() -> Limits {
    Limits { time: Duration::from_secs(10), ..Limits::default() }
}

/// A library with a fault.
struct Planted {
    _folder: TempDir,
    contender: Arc<dyn Contender>,
}

impl Planted {
    fn new(defines: &[(&str, &str)], limits: Limits) -> Self {
        let (folder, library) = compile(&repository("harness/tests/doors/planted.c"), defines);
        let plugin = Plugin::open(&library, limits).expect("the library offers a kernel");
        let contender = plugin.contenders().remove(0);
        Planted { _folder: folder, contender }
    }

    fn runner(&self) -> Box<dyn Runner> {
        self.contender.open().expect("the kernel can be opened")
    }
}

/// What comes of a request with this code after the right computation.
fn after(code: &str, request: &Request) -> Outcome {
    Planted::new(&[("AFTER", code)], limits()).runner().run(request)
}

/// That the kernel crashes with this in the description, and that the next request is served as usual.
fn assert_crash(defines: &[(&str, &str)], request: &Request, limits: Limits, parts: &[&str]) {
    let planted = Planted::new(defines, limits);
    let mut runner = planted.runner();
    for _ in 0..2 {
        let outcome = runner.run(request);
        let Outcome::Crashed(crash) = outcome else { panic!("{defines:?}: {outcome:?}") };
        for part in parts {
            assert!(crash.description.contains(part), "{defines:?}: {crash}");
        }
    }
}

#[test]
fn well_behaved() {
    let planted = Planted::new(&[], limits());
    let mut runner = planted.runner();
    for request in [rms_norm(3, 5), rms_norm(1, 1), rms_norm(0, 4), rms_norm(70, 513), rms_norm(3, 4096)] {
        let gaps = if request.outputs[0].is_empty() { request.clone() } else { with_gaps(request.clone()) };
        for request in [gaps, with_prelude(request.clone()), in_place(request.clone()), request] {
            assert_well_behaved(runner.run(&request), &request);
        }
    }
}

#[test]
fn the_example() {
    let (_folder, library) = compile(&repository("harness/examples/plugin/rms_norm.c"), &[]);
    let plugin = Plugin::open(&library, limits()).expect("the example can be opened");
    let contender = plugin.contenders().remove(0);
    let info = contender.info();
    assert_eq!((&*info.name, &*info.operator), ("rms_norm", "rms_norm"));
    assert_eq!(info.layouts.to_string(), "contiguous,offset,in_place");
    let Origin::File { sha256, library: name, version, .. } = contender.origin() else { panic!("a file") };
    assert_eq!((&**name, &**version), ("example", "1.0"));
    let sum = Command::new("sha256sum").arg(&library).output().expect("sha256sum of coreutils").stdout;
    assert!(String::from_utf8_lossy(&sum).starts_with(&**sha256), "{sha256}");
    let mut runner = contender.open().expect("the example can be opened");
    for request in [rms_norm(3, 5), in_place(rms_norm(7, 129)), rms_norm(0, 3), with_prelude(rms_norm(2, 8))] {
        assert_well_behaved(runner.run(&request), &request);
    }
    let mut llama = rms_norm(3, 5);
    llama.attributes[2].1 = isonorm_kernels::abi::Value::Text("llama".into());
    assert_eq!(runner.run(&llama), Outcome::Declined("only cast=none".into()));
}

#[test]
fn stray_accesses_are_stopped_and_named() {
    let request = rms_norm(3, 5);
    let cases = [
        ("sink = x[n]", "x", Some(false), Place::After(1)),
        ("sink = x[n + 30]", "x", Some(false), Place::After(31)),
        ("sink = x[-1]", "x", Some(false), Place::Before(1)),
        ("sink = weight[columns]", "weight", Some(false), Place::After(1)),
        ("y[n] = 1", "y", Some(true), Place::After(1)),
        ("y[-1] = 1", "y", Some(true), Place::Before(1)),
        ("y[-2000] = 1", "y", Some(true), Place::Before(2000)),
        ("x[4] = 1", "x", Some(true), Place::Inside(4)),
    ];
    for (code, tensor, write, place) in cases {
        let planted = Planted::new(&[("AFTER", code)], limits());
        let mut runner = planted.runner();
        for _ in 0..2 {
            let outcome = runner.run(&request);
            let Outcome::Crashed(crash) = &outcome else { panic!("{code}: {outcome:?}") };
            let access = crash.access.as_ref().unwrap_or_else(|| panic!("{code}: {crash}"));
            assert_eq!((&*access.tensor, access.place), (tensor, place), "{code}");
            if cfg!(target_arch = "x86_64") {
                assert_eq!(access.write, write, "{code}");
            }
        }
    }
}

#[test]
fn a_write_in_the_slack_is_found_afterwards() {
    // Only in the first call, where the guard page is at the other end.
    let code = "if (((unsigned long)y & 4095) == 0) y[n + 2] = 1";
    let expected = [Conduct::WroteOutside { tensor: "y".into(), place: Place::After(3) }];
    assert_eq!(conduct(after(code, &rms_norm(3, 5))), expected);
    let expected = [Conduct::WroteOutside { tensor: "y".into(), place: Place::Gap(5) }];
    assert_eq!(conduct(after("y[5] = 1", &with_gaps(rms_norm(3, 5)))), expected);
}

#[test]
fn an_input_changed_behind_the_page_protection_is_found() {
    let code = "mprotect((void *)((unsigned long)x & -4096), 4096, 3), x[3] = 7";
    let planted = Planted::new(&[("HEAD", "int mprotect(void *, size_t, int);"), ("AFTER", code)], limits());
    let expected = [Conduct::ModifiedInput { tensor: "x".into(), element: 3 }];
    assert_eq!(conduct(planted.runner().run(&rms_norm(3, 5))), expected);
}

#[test]
fn unwritten_elements() {
    // The kernel saves the element and puts it back, as if the loop had ended early.
    for (condition, of) in [("1", [15, 16]), ("n % 2", [15, 0])] {
        let (head, before) = ("static float saved;", "saved = y[n - 1]");
        let restore = format!("if ({condition}) y[n - 1] = saved");
        let defines = [("HEAD", head), ("BEFORE", before), ("AFTER", &restore)];
        let planted = Planted::new(&defines, limits());
        let mut runner = planted.runner();
        for (request, of) in [rms_norm(3, 5), rms_norm(4, 4)].iter().zip(of) {
            let unwritten = Conduct::Unwritten { tensor: "y".into(), element: of.max(1) - 1, count: 1, of };
            let expected = if of == 0 { vec![] } else { vec![unwritten] };
            assert_eq!(conduct(runner.run(request)), expected, "{condition}");
        }
    }
}

#[test]
fn results_that_depend_on_something_else() {
    let request = rms_norm(3, 5);
    let random = conduct(after("y[2] = rand()", &request));
    assert!(matches!(&random[..], [Conduct::Unrepeatable(difference)] if difference.element == 2), "{random:?}");
    let address = conduct(after("y[2] = (unsigned long)x & 4095", &request));
    assert!(matches!(&address[..], [Conduct::AddressDependent(difference)] if difference.element == 2), "{address:?}");
    // Reads what was in the output before.
    let before = [("HEAD", "static float was;"), ("BEFORE", "was = y[2]"), ("AFTER", "y[2] = was > 1")];
    let stale = conduct(Planted::new(&before, limits()).runner().run(&request));
    assert!(matches!(&stale[..], [Conduct::ReadOutside(difference)] if difference.element == 2), "{stale:?}");
}

#[test]
fn results_kept_by_pointer() {
    let keep = "static float *keys[64], values[64]; static int used;";
    let code = "int i = 0; while (i < used && keys[i] != x) i++; \
                if (i == used) { keys[i] = x; values[i] = y[0]; used++; } else y[0] = values[i];";
    let planted = Planted::new(&[("HEAD", keep), ("AFTER", code)], limits());
    let found = conduct(planted.runner().run(&with_prelude(rms_norm(3, 5))));
    assert!(matches!(&found[..], [Conduct::Stale(difference)] if difference.element == 0), "{found:?}");
}

#[test]
fn ends_of_the_process() {
    let cases = [
        ("*(volatile int *)0 = 1", "null pointer"),
        ("*(volatile int *)0x123456789abcdef0 = 1", "wild pointer"),
        ("fprintf(stderr, \"out of luck\\n\"), abort()", "SIGABRT (abort); it printed: out of luck"),
        ("exit(0)", "exit(0)"),
        ("_exit(3)", "exit(3)"),
        ("raise(9)", "SIGKILL"),
        ("raise(11)", "SIGSEGV, sent by itself"),
        ("close(3), close(4), close(5), write(6, \"hello\\n\", 6), pause()", "file descriptor that is not its own"),
        ("for (int i = 3; i < 9; i++) write(i, \"hello\\n\", 6)", "file descriptor that is not its own"),
    ];
    let request = rms_norm(3, 5);
    for (code, part) in cases {
        assert_crash(&[("HEAD", "int raise(int);"), ("AFTER", code)], &request, limits(), &[part]);
    }
    let deep = "static int deep(int n) { volatile char room[4096] = {n}; return deep(n + 1) + room[7]; }";
    assert_crash(&[("HEAD", deep), ("AFTER", "sink = deep(0)")], &request, limits(), &["stack overflowed"]);
    if cfg!(target_arch = "x86_64") {
        assert_crash(&[("AFTER", "__builtin_trap()")], &request, limits(), &["SIGILL"]);
    }
}

#[test]
fn a_crash_is_over_with_the_next_request() {
    let planted = Planted::new(&[("AFTER", "if (n == 15) abort()")], limits());
    let mut runner = planted.runner();
    for (rows, crashes) in [(2, false), (3, true), (2, false), (3, true), (3, true), (4, false)] {
        let request = rms_norm(rows, 5);
        match runner.run(&request) {
            Outcome::Crashed(_) if crashes => {}
            outcome => assert_well_behaved(outcome, &request),
        }
    }
}

#[test]
fn a_hang_is_ended() {
    let limit = Duration::from_secs(1);
    let planted = Planted::new(&[("AFTER", "while (n == 15) sink = 1")], Limits { time: limit, ..limits() });
    let mut runner = planted.runner();
    assert_eq!(runner.run(&rms_norm(3, 5)), Outcome::Hung(limit));
    assert_well_behaved(runner.run(&rms_norm(2, 5)), &rms_norm(2, 5));
}

#[test]
fn threads_in_the_background() {
    let head = "static void *late(void *to) { usleep(WAIT); *(float *)to = 1; return 0; }";
    let code = "pthread_t thread; pthread_create(&thread, 0, late, (void *)(y + 4))";
    let run = |wait: &str, code: &str| {
        let planted = Planted::new(&[("WAIT", wait), ("HEAD", head), ("AFTER", code)], limits());
        planted.runner().run(&rms_norm(3, 5))
    };
    // Writes soon after the return; is still running long after it.
    let soon = conduct(run("5000", code));
    assert_eq!(soon, [Conduct::BackgroundThreads { threads: 1, wrote: true }]);
    let late = conduct(run("2000000", code));
    assert_eq!(late, [Conduct::BackgroundThreads { threads: 1, wrote: false }]);
    // A thread that is waited for is nobody's business.
    let joined = format!("{code}; pthread_join(thread, 0); y[4] = y[3]");
    assert_eq!(conduct(run("10", &joined)), []);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_changed_float_environment() {
    let code = "unsigned flush = 0x9f80; __asm__ volatile(\"ldmxcsr %0\" : : \"m\"(flush))";
    let found = conduct(after(code, &rms_norm(3, 5)));
    let [Conduct::ChangedFloatEnvironment { change }] = &found[..] else { panic!("{found:?}") };
    assert!(change.contains("flush-to-zero"), "{change}");
}

#[test]
fn what_a_kernel_prints_harms_nothing() {
    let code = "for (int i = 0; i < 3000; i++) { puts(\"{\\\"calls\\\":[]}\"); fprintf(stderr, \"%d\\n\", i); } fflush(stdout)";
    let planted = Planted::new(&[("AFTER", code)], limits());
    let mut runner = planted.runner();
    (0..20).for_each(|_| assert_well_behaved(runner.run(&rms_norm(3, 5)), &rms_norm(3, 5)));
}

#[test]
fn memory_is_limited() {
    let code = "char *room = malloc(1l << 30); if (!room) return isonorm_decline(call, \"no memory\"), ISONORM_ERROR; \
                memset(room, 1, 1l << 30); free(room)";
    let tight = Limits { memory: 512 << 20, ..limits() };
    let run = |limits| Planted::new(&[("AFTER", code)], limits).runner().run(&rms_norm(3, 5));
    assert_eq!(run(tight), Outcome::Failed("no memory".into()));
    assert_well_behaved(run(limits()), &rms_norm(3, 5));
}

#[test]
fn nothing_is_inherited() {
    // SAFETY: set before any process is started from this thread, and no other test reads this variable.
    unsafe { std::env::set_var("ISONORM_TEST_SECRET", "1") };
    let open = fs::File::open(repository("README.md")).expect("the file is there");
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&open);
    // SAFETY: makes a copy of a descriptor that children would inherit.
    let leaked = unsafe { libc::fcntl(descriptor, libc::F_DUPFD, 100) };
    assert!(leaked >= 100);
    let code = "if (getenv(\"ISONORM_TEST_SECRET\") || getenv(\"HOME\") || lseek(LEAKED, 0, 1) != -1) abort()";
    let planted = Planted::new(&[("LEAKED", &leaked.to_string()), ("AFTER", code)], limits());
    assert_well_behaved(planted.runner().run(&rms_norm(3, 5)), &rms_norm(3, 5));
    // libtorch is not in the process, so that a kernel cannot pass off its results.
    let code = "char line[4096]; FILE *maps = fopen(\"/proc/self/maps\", \"r\"); if (!maps) abort(); \
                while (fgets(line, 4096, maps)) if (strstr(line, \"libtorch\") || strstr(line, \"libc10\")) exit(9)";
    assert_well_behaved(after(code, &rms_norm(3, 5)), &rms_norm(3, 5));
}

#[test]
fn aligned_unless_the_kernel_says_otherwise() {
    let code = "if ((unsigned long)x % 64 || (unsigned long)y % 64) abort()";
    let layouts = ("DESCRIPTOR", ".layouts = \"contiguous\"");
    let planted = Planted::new(&[layouts, ("AFTER", code)], limits());
    assert_well_behaved(planted.runner().run(&rms_norm(3, 5)), &rms_norm(3, 5));
    assert_crash(&[("AFTER", code)], &rms_norm(3, 5), limits(), &["SIGABRT"]);
}

#[test]
fn libraries_that_cannot_be_opened() {
    let source = repository("harness/tests/doors/planted.c");
    let die = "static int *volatile nowhere; __attribute__((constructor)) static void die(void) { *nowhere = 1; }";
    let sleep = "__attribute__((constructor)) static void nap(void) { sleep(60); }";
    let cases: [(&[(&str, &str)], &str); 14] = [
        (&[("ABI_VERSION", "7")], "speaks version 7 of the kernel interface, this program version 1; compile it again"),
        (&[("NO_SYMBOL", "1")], "does not export `isonorm_library_v1`; define"),
        (&[("LIBRARY", "NULL")], "`isonorm_library_v1` returned NULL"),
        (&[("LIBRARY", "(isonorm_library *)16")], "ends its process while it is loaded: ended by SIGSEGV"),
        (&[("HEAD", die)], "ends its process while it is loaded: ended by SIGSEGV"),
        (&[("HEAD", sleep)], "is not loaded after 300ms; check its constructors"),
        (&[("HEAD", "extern int nowhere(void);"), ("AFTER", "nowhere()")], "undefined symbol: nowhere"),
        (&[("COUNT", "0")], "lists no kernel"),
        (&[("COUNT", "2")], "two kernels are called `planted`"),
        (&[("COUNT", "1000000")], "says that it has 1000000 kernels"),
        (
            &[("DESCRIPTOR", ".dtypes = \"f32,f31\"")],
            "`dtypes` of kernel `planted`: `dtypes` says `f31`; it can be f32",
        ),
        (&[("DESCRIPTOR", ".layouts = \"dense\"")], "`layouts` says `dense`; it can be contiguous"),
        (&[("DESCRIPTOR", ".run = NULL")], "`run` of kernel 0 is NULL"),
        (&[("DESCRIPTOR", ".name = \"a b\"")], "the name `a b` has to be letters"),
    ];
    let short = Limits { time: Duration::from_millis(300), ..limits() };
    for (defines, part) in cases {
        let (_folder, library) = compile(&source, defines);
        let limits = if defines == [("HEAD", sleep)] { short } else { limits() };
        let error = Plugin::open(&library, limits).expect_err(part).to_string();
        assert!(error.contains(part), "{defines:?}: {error}");
        assert!(error.contains("libplanted.so"), "{error}");
    }
}

#[test]
fn files_that_are_no_libraries() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("lib.so");
    let error = |path: &Path| Plugin::open(path, limits()).expect_err("no library").to_string();
    assert!(error(&path).contains("cannot read"), "{}", error(&path));
    fs::write(&path, "hello").expect("the folder is writable");
    assert!(error(&path).contains("is not a shared library; make one with `cc"), "{}", error(&path));
    fs::write(&path, "\x7fELF and no more").expect("the folder is writable");
    assert!(error(&path).contains("cannot load"), "{}", error(&path));
    fs::write(&path, "").expect("the folder is writable");
    assert!(error(&path).contains("is not a shared library"), "{}", error(&path));
    assert!(error(folder.path()).contains("cannot read"), "{}", error(folder.path()));
}

#[test]
fn a_library_that_changes_is_not_run() {
    let (_folder, library) = compile(&repository("harness/tests/doors/planted.c"), &[]);
    let plugin = Plugin::open(&library, limits()).expect("the library offers a kernel");
    let (_other, changed) = compile(&repository("harness/tests/doors/planted.c"), &[("AFTER", "y[0] = 0")]);
    fs::copy(changed, &library).expect("the folder is writable");
    assert!(matches!(plugin.contenders()[0].open(), Err(RunError::Changed { .. })));
}

#[test]
fn a_runner_may_move_to_another_thread() {
    let planted = Planted::new(&[], limits());
    // Its process ends with the thread that started it.
    let mut runner = std::thread::scope(|scope| scope.spawn(|| planted.runner()).join()).expect("no panic");
    assert_well_behaved(runner.run(&rms_norm(3, 5)), &rms_norm(3, 5));
}
