// How parameters are declared: a kernel takes one struct by value, whose fields the host fills by name. build.rs reads
// the headers of this folder, lays the structs out as C does, and makes of them Rust's structs and the emulator's list
// of kernels. It knows this much of C++, a declaration a line:
//
//   constexpr int NAME = EXPRESSION;             also constexpr u32; a Rust constant
//   template <class T>                           before a struct
//   struct Name {                                its fields, then  };
//       const T* x;                              a pointer; nobody writes what a kernel reads through a const one
//       int n, h, w;                             int, u32, i64, u64, float, double
//       Inner<T> of;                             another struct
//       Inner<T> jobs[NAME];                     so many of it; NAME is a constant above whose expression is a number. The
//                                                host gives as many as there are; those beyond are zeros
//       TensorMap x;                             a tensor of bf16 for copies of its boxes; TensorMapOf<T> of others
//   ENTRY(UNIT, kernel, Name<bf16>)              a kernel that takes it, and the unit that its FLOP go to:
//                                                Fp32, TensorTf32, TensorBf16, TensorU8 or WgmmaBf16
//   ENTRY_OF_MAPS(UNIT, kernel, Name<bf16>)      the same of a struct with tensor maps: its kernel's one parameter is
//                                                const __grid_constant__, so that maps have an address
//
// A struct that a kernel takes has at most 4,096 bytes. A comment before a field or behind it is Rust's documentation.
#pragma once

#define ENTRY(unit, kernel, ...) extern "C" __global__ void kernel(const __VA_ARGS__ p);
#define ENTRY_OF_MAPS(unit, kernel, ...) extern "C" __global__ void kernel(const __grid_constant__ __VA_ARGS__ p);
