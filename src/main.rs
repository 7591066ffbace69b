//! `emm`: parse, dispatch, one error line, one exit code.

#[global_allocator]
static ALLOCATOR: emm::memory::OrEnd = emm::memory::OrEnd;

fn main() {
    emm::memory::prepare();
    std::process::exit(emm::cli::main());
}
