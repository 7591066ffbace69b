// Streams, events and graphs. A stream is a queue whose work runs when a call waits for it, no sooner: that is what a
// program may rely on. Under a schedule with early copies work runs as it is queued, the other extreme.
#include "driver.h"
#include "memory.h"
#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace emu {

struct Graph {
    unsigned device;
    std::vector<Work> nodes{};
};

// Whose calls that a capture does not allow spoil it: everybody's, its own thread's, nobody's.
enum class CaptureMode { Global, ThreadLocal, Relaxed };

// A capture under way: the graph it fills, the stream that it began in, and those that joined by waiting for an event.
struct Capture {
    std::unique_ptr<Graph> graph{new Graph{on_device}};
    Stream* origin;
    CaptureMode mode;
    std::thread::id thread = std::this_thread::get_id();
    bool spoiled = false;
};

struct Queue {
    struct Item {
        Work work;
        Schedule schedule;
    };
    unsigned device;
    std::deque<Item> items{};
};

struct Stream {
    std::shared_ptr<Queue> queue;
    Capture* capture = nullptr;
};

// A place in a queue, and when it was reached.
struct Mark {
    std::shared_ptr<Queue> queue;
    bool reached = false;
    std::chrono::steady_clock::time_point at{};
};

struct Event {
    bool timed;
    std::shared_ptr<Mark> mark{};  // where it was last recorded
    Capture* capture = nullptr;  // recorded in a captured stream: marks a place in the graph, not a time
};

struct Executable {
    unsigned device;
    std::shared_ptr<const std::vector<Work>> nodes;
};

static Handles<Stream> streams;
static Handles<Event> events;
static Handles<Graph> graphs;
static Handles<Executable> executables;
static std::set<Capture*> captures;

static bool is_default(const Stream* stream) {  // null, or the legacy and per-thread constants 1 and 2
    return reinterpret_cast<size_t>(stream) <= 2;
}

static Result spoil(Capture* capture, Result result, const std::string& why) {
    capture->spoiled = true;
    return refuse(result, why);
}

// The capture that a disallowed call of this thread would spoil.
static Capture* disturbed_capture() {
    for (Capture* capture : captures) {
        bool own = capture->thread == std::this_thread::get_id();
        if (capture->mode == CaptureMode::Global || (own && capture->mode == CaptureMode::ThreadLocal)) return capture;
    }
    return nullptr;
}

Result outside_capture(const char* call) {
    Capture* capture = disturbed_capture();
    return capture ? spoil(capture, CaptureUnsupported, std::string(call) + " during a stream capture") : Success;
}

// ---- queues ----------------------------------------------------------------------------------------------------

// A device's default stream and those that wait for it share one queue: one of the orders that they may run in.
static std::vector<std::shared_ptr<Queue>> make_default_queues() {
    std::vector<std::shared_ptr<Queue>> all;
    for (unsigned i = 0; i < most_devices; i++) all.push_back(std::make_shared<Queue>(Queue{i}));
    return all;
}
static const std::vector<std::shared_ptr<Queue>> default_queues = make_default_queues();
static std::vector<std::shared_ptr<Queue>> queues = default_queues;  // a destroyed stream's too, until it is empty
static const size_t longest_queue = 1000;                            // a launch waits while a GPU's queue is full
static Schedule schedule_of_work;

const Schedule& running_schedule() { return schedule_of_work; }

static void run_first(Queue& queue) {
    Queue::Item item = std::move(queue.items.front());
    queue.items.pop_front();
    schedule_of_work = item.schedule;
    unsigned caller = std::exchange(on_device, queue.device);
    if (Result r = item.work()) {
        if (!broken()) break_context(r);
        for (const auto& each : queues)
            if (each->device == on_device) each->items.clear();
    }
    on_device = caller;
}
static Result drain(Queue& queue) {
    while (!queue.items.empty()) run_first(queue);
    return broken();
}
Result drain_default() { return drain(*default_queues[on_device]); }
Result drain_all() {
    for (size_t i = 0; i < queues.size(); i++)
        if (queues[i]->device == on_device) drain(*queues[i]);
    for (size_t i = queues.size(); i--;)
        if (queues[i].use_count() == 1 && queues[i]->items.empty()) queues.erase(queues.begin() + i);
    return broken();
}
// What fails while it runs here is told by a later call.
static void push(Queue& queue, Work work) {
    queue.items.push_back({std::move(work), wanted_schedule()});
    if (wanted_schedule().early_copies) drain(queue);
    else if (queue.items.size() > longest_queue) run_first(queue);
}
static Result reach(const Mark& mark) {
    while (!mark.reached && !mark.queue->items.empty()) run_first(*mark.queue);
    return broken();
}

static const std::shared_ptr<Queue>& queue_of(const Stream* stream) {
    return is_default(stream) ? default_queues[on_device] : stream->queue;
}

Result enter_by(Stream* stream) {
    if (is_default(stream)) return enter();
    if (!streams.has(stream)) return refuse(InvalidHandle, "not a live stream");
    on_device = stream->queue->device;
    return broken();
}
static Result enter_by(Graph* graph) {
    if (!graphs.has(graph)) return refuse(InvalidHandle, "not a live graph");
    on_device = graph->device;
    return broken();
}
static Result enter_by(Executable* executable) {
    if (!executables.has(executable)) return refuse(InvalidHandle, "not a live executable graph");
    on_device = executable->device;
    return broken();
}

// A stream that work of the device's context may go into.
static Result check_stream(const Stream* stream) {
    if (is_default(stream)) return Success;
    if (!streams.has(stream)) return refuse(InvalidHandle, "not a live stream");
    if (stream->queue->device == on_device) return Success;
    return refuse(InvalidHandle, "a stream of device " + std::to_string(stream->queue->device) +
                                     ", the current context is of device " + std::to_string(on_device));
}

bool is_captured(Stream* stream) { return !is_default(stream) && streams.has(stream) && stream->capture; }

Result submit(Stream* stream, Work work) {
    if (Result r = check_stream(stream)) return r;
    if (is_default(stream)) {
        if (Capture* capture = disturbed_capture())
            return spoil(capture, CaptureImplicit, "work in the default stream during a capture");
    } else if (Capture* capture = stream->capture) {
        if (capture->spoiled) return refuse(CaptureInvalidated, "the capture was spoiled by an earlier call");
        capture->graph->nodes.push_back(std::move(work));
        return Success;
    }
    push(*queue_of(stream), std::move(work));
    return Success;
}

// Lets go of the capture's streams and events.
static std::unique_ptr<Capture> end(Capture* capture) {
    captures.erase(capture);
    for (Stream* s : streams.live)
        if (s->capture == capture) s->capture = nullptr;
    for (Event* e : events.live)
        if (e->capture == capture) e->capture = nullptr;
    return std::unique_ptr<Capture>(capture);
}

// ---- streams ---------------------------------------------------------------------------------------------------

EMU_EXPORT Result cuStreamCreate(Stream** stream, unsigned flags) {
    EMU_ENTER;
    const unsigned non_blocking = 1;  // doesn't wait for the default stream
    auto queue = flags & non_blocking ? std::make_shared<Queue>(Queue{on_device}) : default_queues[on_device];
    *stream = streams.add(new Stream{queue});
    if (flags & non_blocking) queues.push_back((*stream)->queue);
    return Success;
}
EMU_EXPORT Result cuStreamCreateWithPriority(Stream** stream, unsigned flags, int) {
    return cuStreamCreate(stream, flags);
}
EMU_EXPORT Result cuStreamDestroy_v2(Stream* stream) {
    EMU_ENTER;
    if (streams.has(stream) && stream->capture && stream->capture->origin == stream) end(stream->capture);
    return streams.remove(stream) ? Success : refuse(InvalidHandle, "not a live stream");
}
EMU_EXPORT Result cuStreamSynchronize(Stream* stream) {
    EMU_ENTER;
    if (is_default(stream)) {
        if (Result r = outside_capture("cuStreamSynchronize")) return r;
        return drain_default();
    }
    if (Result r = check_stream(stream)) return r;
    if (stream->capture) return spoil(stream->capture, CaptureUnsupported, "cuStreamSynchronize of a captured stream");
    return drain(*stream->queue);
}
// Whoever asks again and again lets time pass: the work is done by then.
EMU_EXPORT Result cuStreamQuery(Stream* stream) { return cuStreamSynchronize(stream); }

EMU_EXPORT Result cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    EMU_ENTER;
    if (!events.has(event)) return refuse(InvalidHandle, "not a live event");
    if (is_default(stream) && event->capture) return refuse(CapturedEvent, "the default stream waits for a capture");
    if (Result r = check_stream(stream)) return r;
    if (is_captured(stream) && stream->capture != event->capture)
        return spoil(stream->capture, CaptureIsolation, "a captured stream waits for an event recorded outside the capture");
    if (event->capture) stream->capture = event->capture;  // the stream joins
    else if (event->mark) push(*queue_of(stream), [mark = event->mark] { return reach(*mark); });
    return Success;
}

EMU_EXPORT Result cuLaunchHostFunc(Stream* stream, void (*function)(void*), void* data) {
    EMU_ENTER;
    return submit(stream, [function, data] {
        function(data);
        return Success;
    });
}

// ---- events ----------------------------------------------------------------------------------------------------

EMU_EXPORT Result cuEventCreate(Event** event, unsigned flags) {
    EMU_ENTER;
    const unsigned disable_timing = 2;
    *event = events.add(new Event{!(flags & disable_timing)});
    return Success;
}
EMU_EXPORT Result cuEventDestroy_v2(Event* event) {
    EMU_ENTER;
    return events.remove(event) ? Success : refuse(InvalidHandle, "not a live event");
}
EMU_EXPORT Result cuEventRecord(Event* event, Stream* stream) {
    EMU_ENTER;
    if (!events.has(event)) return refuse(InvalidHandle, "not a live event");
    if (Result r = check_stream(stream)) return r;
    event->capture = is_default(stream) ? nullptr : stream->capture;
    if (event->capture) return Success;
    auto mark = event->mark = std::make_shared<Mark>(Mark{queue_of(stream)});
    push(*mark->queue, [mark] {
        mark->reached = true;
        mark->at = std::chrono::steady_clock::now();
        return Success;
    });
    return Success;
}
EMU_EXPORT Result cuEventSynchronize(Event* event) {
    EMU_ENTER;
    if (!events.has(event)) return refuse(InvalidHandle, "not a live event");
    if (event->capture) return refuse(CapturedEvent, "waits for an event of a capture");
    return event->mark ? reach(*event->mark) : Success;
}
EMU_EXPORT Result cuEventQuery(Event* event) { return cuEventSynchronize(event); }
EMU_EXPORT Result cuEventElapsedTime_v2(float* milliseconds, Event* start, Event* end) {
    EMU_ENTER;
    for (Event* event : {start, end}) {
        if (!events.has(event)) return refuse(InvalidHandle, "not a live event");
        if (event->capture) return refuse(CapturedEvent, "asks the time of an event of a capture");
        if (!event->timed || !event->mark) return refuse(InvalidHandle, "an event without timing, or never recorded");
        if (!event->mark->reached) return refuse(NotReady, "asks the time of an event that nobody waited for");
    }
    *milliseconds = std::chrono::duration<float, std::milli>(end->mark->at - start->mark->at).count();
    return Success;
}
EMU_EXPORT Result cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

// ---- capture ---------------------------------------------------------------------------------------------------

EMU_EXPORT Result cuStreamBeginCapture_v2(Stream* stream, int mode) {
    EMU_ENTER;
    if (is_default(stream)) return refuse(CaptureUnsupported, "the default stream cannot be captured");
    if (Result r = check_stream(stream)) return r;
    if (stream->capture) return refuse(IllegalState, "the stream is being captured");
    if (mode < 0 || mode > 2) return InvalidValue;
    stream->capture = new Capture;
    stream->capture->origin = stream;
    stream->capture->mode = CaptureMode(mode);
    captures.insert(stream->capture);
    return Success;
}

EMU_EXPORT Result cuStreamEndCapture(Stream* stream, Graph** graph) {
    EMU_ENTER;
    *graph = nullptr;
    if (is_default(stream) || !streams.has(stream)) return refuse(InvalidHandle, "not a live stream");
    Capture* capture = stream->capture;
    if (!capture) return refuse(IllegalState, "the stream is not being captured");
    if (capture->origin != stream) return spoil(capture, CaptureUnmatched, "the capture began in another stream");
    std::unique_ptr<Capture> ended = end(capture);
    if (ended->spoiled) return CaptureInvalidated;  // the reason is the last error still
    *graph = graphs.add(ended->graph.release());
    return Success;
}

EMU_EXPORT Result cuStreamIsCapturing(Stream* stream, int* status) {
    EMU_ENTER;
    if (!is_default(stream) && !streams.has(stream)) return refuse(InvalidHandle, "not a live stream");
    const Capture* capture = is_default(stream) ? nullptr : stream->capture;
    *status = !capture ? 0 : capture->spoiled ? 2 : 1;
    return Success;
}

// ---- graphs ----------------------------------------------------------------------------------------------------

EMU_EXPORT Result cuGraphGetNodes(Graph* graph, void** nodes, size_t* count) {
    EMU_ENTER_BY_HANDLE(graph);
    if (nodes)
        for (size_t i = 0; i < *count; i++) nodes[i] = i < graph->nodes.size() ? &graph->nodes[i] : nullptr;
    if (!nodes || *count > graph->nodes.size()) *count = graph->nodes.size();
    return Success;
}
EMU_EXPORT Result cuGraphDestroy(Graph* graph) {
    EMU_ENTER_BY_HANDLE(graph);
    graphs.remove(graph);
    return Success;
}
EMU_EXPORT Result cuGraphInstantiateWithFlags(Executable** executable, Graph* graph, unsigned long long) {
    EMU_ENTER_BY_HANDLE(graph);
    *executable = executables.add(new Executable{graph->device, std::make_shared<std::vector<Work>>(graph->nodes)});
    return Success;
}
EMU_EXPORT Result cuGraphExecDestroy(Executable* executable) {
    EMU_ENTER_BY_HANDLE(executable);
    executables.remove(executable);
    return Success;
}
EMU_EXPORT Result cuGraphUpload(Executable* executable, Stream*) {
    EMU_ENTER_BY_HANDLE(executable);
    return Success;
}
EMU_EXPORT Result cuGraphLaunch(Executable* executable, Stream* stream) {
    EMU_ENTER;
    if (!executables.has(executable)) return refuse(InvalidHandle, "not a live executable graph");
    return submit(stream, [nodes = executable->nodes] {
        for (const Work& work : *nodes)
            if (Result r = work()) return r;
        return Success;
    });
}

}  // namespace emu
