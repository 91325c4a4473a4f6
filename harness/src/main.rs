//! The `isonorm` command.

fn main() -> std::process::ExitCode {
    isonorm_harness::commands::main()
}
