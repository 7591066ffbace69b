//! `emm`: parse, dispatch, one error line, one exit code.

fn main() {
    std::process::exit(emm::cli::main());
}
