//! Tensor maps, as the driver encodes them.

use super::super::map::{Map, Swizzle};
use super::super::slot::Dtype;
use cudarc::driver::DriverError;
use cudarc::driver::sys::{
    self, CUresult, CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill,
    CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle,
};

/// What a kernel is given of a tensor whose first element lies at `address`: zeros for none.
///
/// # Errors
/// What the driver refuses.
pub(super) fn encode(map: &Map, address: u64) -> Result<CUtensorMap, DriverError> {
    let mut encoded = CUtensorMap { opaque: [0; 16] };
    if address == 0 {
        return Ok(encoded);
    }
    let (kind, bytes) = match map.dtype {
        Dtype::Bf16 => (CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2),
        Dtype::F32 => (CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4),
    };
    let swizzle = match map.swizzle {
        Swizzle::None => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::Within32 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::Within64 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::Within128 => CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let dims = map.dims.map(|n| n as u64);
    let strides = map.strides.map(|n| n as u64 * bytes);
    let (size, steps) = (map.size.map(|n| n as u32), map.steps.map(|n| n as u32));
    // SAFETY: the arrays have as many values as the rank asks for; the map is on 64 bytes, as its type is.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut encoded,
            kind,
            map.rank as u32,
            address as *mut _,
            dims.as_ptr(),
            strides.as_ptr(),
            size.as_ptr(),
            steps.as_ptr(),
            CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    match result {
        CUresult::CUDA_SUCCESS => Ok(encoded),
        error => Err(DriverError(error)),
    }
}
