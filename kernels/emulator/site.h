// Where in the source a barrier, collective or asynchronous copy stands.
#pragma once

namespace emu {

struct Site {
    const char* file;
    int line;
    int occurrence;  // tells two barriers on one line apart; 0 where only the line is known
};

// As a default argument this is the place of the call.
constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line, 0}; }

}  // namespace emu

// One site for each time it is written out; __COUNTER__ tells apart what stands on one line.
#define EMU_SITE (emu::Site{__FILE__, __LINE__, __COUNTER__ + 1})
