"""The operators of torch that a model may use: those that do nothing but compute.

The list is explicit: an operator that a later torch brings is refused until somebody has looked at it and put it
here. A name stands for all of its overloads.

What is left out, and why:

- what reaches out of the model: `aten::save`, `aten::from_file`, all of `image::` (it reads and writes files),
  `prim::rpc_*`, `c10d::` and their kin, `prim::PythonOp`;
- threads that the service does not count: `prim::fork`, `aten::wait`, `prim::awaitable`;
- the state of the process: `aten::manual_seed`, `aten::seed`, generators, `cuda::` (devices, streams and memory
  pools), `profiler::`;
- raw memory: `aten::set_`, `aten::resize_`, `aten::_reshape_alias`, `inductor::`, sparse and nested tensors put
  together from their parts: all of them trust the sizes, strides or indices that they are given;
- gradients, and what only compilers, tests and the libraries of other devices emit.

What is on it although it does more than compute: `aten::empty` and its kin give memory as somebody left it, and
honest models fill it; `print` and `aten::warn` write a line to the log; `aten::set_grad_enabled` is what
`torch.no_grad` becomes; random numbers are drawn, but nothing is seeded.
"""

import os
import re
from collections.abc import Iterable

# Of those that a model may use besides; the service and the training read the same one.
ALLOW_VARIABLE = "LANTERN_ALLOW_OPERATORS"
NO_OTHERS: frozenset[str] = frozenset()
# `aten::relu`; of a class, `classes::quantized.LinearPackedParamsBase`.
NAME = re.compile(r"\w+::\w+(\.\w+)?", re.ASCII)


def parse_operators(text: str) -> frozenset[str]:
    """Read names of operators with commas between them, as `aten::save`.

    Raises:
        ValueError: One is no such name; there is none that stands for many.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no operator's name, as aten::save is")
    return frozenset(names)


def default_allowed() -> str:
    """Return what may be used besides, unless said otherwise: LANTERN_ALLOW_OPERATORS or nothing."""
    return os.environ.get(ALLOW_VARIABLE) or ""


def _named(namespace: str, *groups: str) -> Iterable[str]:
    return (f"{namespace}::{name}" for group in groups for name in group.split())


# Arithmetic, comparison, shape, indexing, sorting, reduction, linear algebra of old.
_TENSORS = """
    __and__ __contains__ __derive_index __getitem__ __iand__ __ilshift__ __ior__ __irshift__ __is__ __isnot__
    __ixor__ __lshift__ __not__ __or__ __range_length __round_to_zero_floordiv __rshift__ __xor__ _aminmax
    _assert_async _assert_tensor_metadata _cast_Byte _cast_Char _cast_Double _cast_Float _cast_Half _cast_Int
    _cast_Long _cast_Short _dim_arange _infer_size _is_all_true _is_any_true _list_to_tensor _ncf_unsqueeze
    _ncf_view _set_item _shape_as_tensor _size_if_not_equal _tensor_to_list _to_copy _trilinear _unique
    _unique2 _unsafe_view _unwrap_optional abs abs_ absolute absolute_ acos acos_ acosh acosh_ add add_ addbmm
    addbmm_ addcdiv addcdiv_ addcmul addcmul_ addmm addmm_ addmv addmv_ addr addr_ adjoint alias all allclose
    amax amin aminmax angle any arange arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan
    arctan2 arctan2_ arctan_ arctanh arctanh_ argmax argmin argsort argwhere as_strided as_tensor asin asin_
    asinh asinh_ atan atan2 atan2_ atan_ atanh atanh_ atleast_1d atleast_2d atleast_3d baddbmm baddbmm_
    bincount bitwise_and bitwise_and_ bitwise_left_shift bitwise_left_shift_ bitwise_not bitwise_not_
    bitwise_or bitwise_or_ bitwise_right_shift bitwise_right_shift_ bitwise_xor bitwise_xor_ block_diag bmm
    broadcast_shapes broadcast_tensors broadcast_to bucketize cartesian_prod cat ceil ceil_ chain_matmul
    cholesky_inverse cholesky_solve chunk clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clip clip_
    clone column_stack combinations complex concat concatenate conj conj_physical conj_physical_ copy_ copysign
    copysign_ corrcoef cos cos_ cosh cosh_ count_nonzero cov cross cummax cummin cumprod cumprod_ cumsum
    cumsum_ cumulative_trapezoid deg2rad deg2rad_ dequantize det diag diag_embed diagflat diagonal
    diagonal_scatter diff digamma digamma_ dim dist div div_ divide divide_ dot dsplit dstack einsum
    element_size empty empty_like empty_permuted empty_strided eq eq_ equal erf erf_ erfc erfc_ erfinv erfinv_
    exp exp2 exp2_ exp_ expand expand_as expm1 expm1_ eye fill fill_ fill_diagonal_ fix fix_ flatten flip
    fliplr flipud float_power float_power_ floor floor_ floor_divide floor_divide_ fmax fmin fmod fmod_ frac
    frac_ frexp frobenius_norm full full_like gather gcd gcd_ ge ge_ geqrf ger gradient greater greater_
    greater_equal greater_equal_ gt gt_ heaviside heaviside_ histc histogram histogramdd hsplit hstack hypot
    hypot_ i0 i0_ igamma igamma_ igammac igammac_ imag index index_add index_add_ index_copy index_copy_
    index_fill index_fill_ index_put index_put_ index_reduce index_reduce_ index_select inner inverse
    is_complex is_conj is_floating_point is_neg is_nonzero is_same_size is_signed isclose isfinite isin isinf
    isnan isneginf isposinf isreal item kron kthvalue lcm lcm_ ldexp ldexp_ le le_ lerp lerp_ less less_
    less_equal less_equal_ lgamma lgamma_ linspace log log10 log10_ log1p log1p_ log2 log2_ log_ logaddexp
    logaddexp2 logcumsumexp logdet logical_and logical_and_ logical_not logical_not_ logical_or logical_or_
    logical_xor logical_xor_ logit logit_ logspace logsumexp lt lt_ lu_solve lu_unpack mH mT masked_fill
    masked_fill_ masked_scatter masked_scatter_ masked_select matmul matrix_H matrix_exp matrix_power max
    maximum mean median meshgrid min minimum mm mode moveaxis movedim msort mul mul_ multiply multiply_ mv
    mvlgamma mvlgamma_ nan_to_num nan_to_num_ nanmean nanmedian nanquantile nansum narrow ne ne_ neg neg_
    negative negative_ new_empty new_empty_strided new_full new_ones new_zeros nextafter nextafter_ nonzero
    nonzero_numpy norm_except_dim not_equal not_equal_ nuclear_norm numel numpy_T ones ones_like orgqr ormqr
    outer permute pinverse polar polygamma polygamma_ positive pow pow_ prod promote_types put put_ quantile
    rad2deg rad2deg_ range ravel real reciprocal reciprocal_ remainder remainder_ renorm_ repeat
    repeat_interleave reshape reshape_as resize resolve_conj resolve_neg result_type roll rot90 round round_
    row_stack rsqrt rsqrt_ rsub scalar_tensor scatter scatter_ scatter_add scatter_add_ scatter_reduce
    scatter_reduce_ searchsorted select select_scatter sgn sgn_ sign sign_ signbit sin sin_ sinc sinc_ sinh
    sinh_ size slice slice_scatter slogdet sort split split_with_sizes sqrt sqrt_ square square_ squeeze
    squeeze_ stack std std_mean storage_offset stride sub sub_ subtract subtract_ sum sum_to_size svd swapaxes
    swapaxes_ swapdims swapdims_ t t_ take take_along_dim tan tan_ tensor tensor_split tensordot tile to_dense
    topk trace transpose transpose_ trapezoid trapz triangular_solve tril tril_ tril_indices triu triu_
    triu_indices true_divide true_divide_ trunc trunc_ unbind unflatten unfold unique_consecutive unique_dim
    unique_dim_consecutive unsqueeze unsqueeze_ vander var var_mean vdot view view_as view_as_complex
    view_as_real vsplit vstack where xlogy xlogy_ zero zero_ zeros zeros_like
"""

# What layers of networks come to, and losses.
_LAYERS = """
    __interpolate __upsample __upsample_bilinear __upsample_nearest _adaptive_avg_pool2d _adaptive_avg_pool3d
    _convolution _convolution_mode _embedding_bag _log_softmax _native_batch_norm_legit
    _native_batch_norm_legit_no_training _native_multi_head_attention _nested_tensor_from_mask
    _nested_tensor_from_mask_left_aligned _nested_tensor_from_tensor_list _pack_padded_sequence _pad_circular
    _pad_enum _pad_packed_sequence _prelu_kernel _safe_softmax _scaled_dot_product_attention_math _softmax
    _transform_bias_rescale_qkv _transformer_encoder_layer_fwd _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    _upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    _weight_norm _weight_norm_interface adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator avg_pool1d avg_pool2d
    avg_pool3d batch_norm bilinear binary_cross_entropy binary_cross_entropy_with_logits cdist celu celu_
    channel_shuffle col2im constant_pad_nd conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d
    conv_transpose3d cosine_embedding_loss cosine_similarity cross_entropy_loss ctc_loss elu elu_ embedding
    embedding_bag fractional_max_pool2d fractional_max_pool3d gelu gelu_ glu grid_sampler group_norm gru
    gru_cell hardshrink hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ hinge_embedding_loss
    huber_loss im2col instance_norm kl_div l1_loss layer_norm leaky_relu leaky_relu_ linear log_sigmoid
    log_softmax lstm lstm_cell margin_ranking_loss max_pool1d max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices max_unpool2d max_unpool3d mish mish_ mse_loss multi_margin_loss
    multilabel_margin_loss native_batch_norm native_group_norm native_layer_norm nll_loss nll_loss2d
    nll_loss_nd norm one_hot pad pad_sequence pairwise_distance pdist pixel_shuffle pixel_unshuffle
    poisson_nll_loss prelu reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 relu6_ relu_ renorm
    replication_pad1d replication_pad2d replication_pad3d rms_norm rnn_relu rnn_relu_cell rnn_tanh
    rnn_tanh_cell scaled_dot_product_attention selu selu_ sigmoid sigmoid_ silu silu_ smooth_l1_loss
    soft_margin_loss softmax softplus softshrink tanh tanh_ threshold threshold_ to_padded_tensor
    triplet_margin_loss upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d
"""

# torch.linalg.
_LINEAR_ALGEBRA = """
    linalg__powsum linalg_cholesky linalg_cholesky_ex linalg_cond linalg_cross linalg_det linalg_diagonal
    linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv linalg_inv_ex
    linalg_ldl_factor linalg_ldl_factor_ex linalg_ldl_solve linalg_lstsq linalg_lu linalg_lu_factor
    linalg_lu_factor_ex linalg_lu_solve linalg_matmul linalg_matrix_exp linalg_matrix_norm linalg_matrix_power
    linalg_matrix_rank linalg_matrix_sqrth linalg_multi_dot linalg_norm linalg_pinv linalg_polar linalg_qr
    linalg_slogdet linalg_solve linalg_solve_ex linalg_solve_triangular linalg_svd linalg_svdvals
    linalg_tensorinv linalg_tensorsolve linalg_vander linalg_vecdot linalg_vector_norm
"""

# torch.fft, and windows.
_FOURIER = """
    bartlett_window blackman_window fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_hfft2
    fft_hfftn fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_ihfft2 fft_ihfftn fft_irfft fft_irfft2
    fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn hamming_window hann_window istft kaiser_window stft
"""

# torch.special.
_SPECIAL = """
    special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1
    special_chebyshev_polynomial_t special_chebyshev_polynomial_u special_chebyshev_polynomial_v
    special_chebyshev_polynomial_w special_digamma special_entr special_erf special_erfc special_erfcx
    special_erfinv special_exp2 special_expit special_expm1 special_gammainc special_gammaincc special_gammaln
    special_hermite_polynomial_h special_hermite_polynomial_he special_i0 special_i0e special_i1 special_i1e
    special_laguerre_polynomial_l special_legendre_polynomial_p special_log1p special_log_ndtr
    special_log_softmax special_logit special_logsumexp special_modified_bessel_i0 special_modified_bessel_i1
    special_modified_bessel_k0 special_modified_bessel_k1 special_multigammaln special_ndtr special_ndtri
    special_polygamma special_psi special_round special_scaled_modified_bessel_k0
    special_scaled_modified_bessel_k1 special_shifted_chebyshev_polynomial_t
    special_shifted_chebyshev_polynomial_u special_shifted_chebyshev_polynomial_v
    special_shifted_chebyshev_polynomial_w special_sinc special_softmax special_spherical_bessel_j0
    special_xlog1py special_xlogy special_zeta
"""

# Where a tensor is, and of which dtype; to one of the machine's own devices.
_PLACES = """
    contiguous cpu cuda data device get_device is_contiguous to type_as
"""

# Dropout stands in every graph, and draws nothing in evaluation.
_RANDOM = """
    alpha_dropout alpha_dropout_ bernoulli bernoulli_ cauchy_ dropout dropout_ exponential_
    feature_alpha_dropout feature_alpha_dropout_ feature_dropout feature_dropout_ geometric_ log_normal_
    multinomial native_dropout normal normal_ poisson rand rand_like randint randint_like randn randn_like
    random_ randperm rrelu rrelu_ uniform_
"""

# Tensors of whole numbers with a scale.
_QUANTIZED_TENSORS = """
    fake_quantize_per_channel_affine fake_quantize_per_tensor_affine int_repr q_per_channel_axis
    q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point qscheme quantize_per_channel
    quantize_per_tensor quantize_per_tensor_dynamic quantized_batch_norm quantized_gru quantized_gru_cell
    quantized_lstm quantized_lstm_cell quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d
    quantized_rnn_relu_cell quantized_rnn_tanh_cell
"""

# See above of warn and set_grad_enabled; the others only tell.
_MODES = """
    detach detach_ get_autocast_dtype is_autocast_cpu_enabled is_autocast_enabled is_grad_enabled is_leaf
    is_scripting requires_grad_ set_grad_enabled warn
"""

# Of str.
_STRINGS = """
    capitalize center chr count endswith expandtabs find format isalnum isalpha isdecimal isdigit isidentifier
    islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip ord partition percentFormat
    replace rfind rindex rjust rpartition rsplit rstrip splitlines startswith str strip swapcase title upper
    zfill
"""

# Of lists and dicts.
_CONTAINERS = """
    Delete append clear copy dict extend get hash insert items keys len list pop popitem remove reverse
    setdefault sorted update values
"""

# Of bool, int, float and complex, and Python's math.
_SCALARS = """
    Bool Complex ComplexImplicit Float FloatImplicit Int IntImplicit ScalarImplicit Size bin degrees divmod
    fabs factorial floordiv gamma hex mathremainder modf oct radians
"""

# What Python's own syntax and a tensor's properties come to.
_PRIMITIVES = """
    EnumName EnumValue NumToTensor RaiseException abs data device dtype grad index is_cpu is_cuda is_ipu
    is_maia is_meta is_mkldnn is_mps is_mtia is_nested is_quantized is_sparse is_sparse_csr is_vulkan is_xla
    is_xpu itemsize layout max min name nbytes rangelist requires_grad tolist type unchecked_cast
    unchecked_unwrap_optional
"""

# Layers in int8 and fp16; their weights are objects of the classes below.
_QUANTIZED = """
    add add_relu add_scalar add_scalar_relu batch_norm batch_norm1d batch_norm1d_relu batch_norm2d
    batch_norm2d_relu batch_norm3d batch_norm3d_relu batch_norm_relu cat cat_relu celu clamp conv1d
    conv1d_dynamic conv1d_prepack conv1d_relu conv1d_unpack conv2d conv2d_add conv2d_add_relu conv2d_dilation
    conv2d_dynamic conv2d_groups conv2d_output_padding conv2d_padding conv2d_prepack conv2d_relu conv2d_stride
    conv2d_transpose conv2d_unpack conv2d_unpack_sizes conv3d conv3d_dilation conv3d_dynamic conv3d_groups
    conv3d_output_padding conv3d_padding conv3d_prepack conv3d_relu conv3d_stride conv3d_transpose
    conv3d_unpack conv_prepack conv_transpose1d conv_transpose1d_dynamic conv_transpose1d_prepack
    conv_transpose1d_unpack conv_transpose2d conv_transpose2d_dilation conv_transpose2d_dynamic
    conv_transpose2d_groups conv_transpose2d_output_padding conv_transpose2d_padding conv_transpose2d_prepack
    conv_transpose2d_stride conv_transpose2d_transpose conv_transpose2d_unpack conv_transpose3d
    conv_transpose3d_dilation conv_transpose3d_dynamic conv_transpose3d_groups conv_transpose3d_output_padding
    conv_transpose3d_padding conv_transpose3d_prepack conv_transpose3d_stride conv_transpose3d_transpose
    conv_transpose3d_unpack conv_unpack dropout elu embedding_4bit embedding_bag_4bit embedding_bag_byte
    embedding_bag_prepack embedding_bag_unpack embedding_byte group_norm hardswish instance_norm layer_norm
    leaky_relu linear linear_dynamic linear_dynamic_fp16 linear_dynamic_fp16_unpacked_weight linear_leaky_relu
    linear_prepack linear_prepack_fp16 linear_relu linear_relu_dynamic linear_relu_dynamic_fp16 linear_tanh
    linear_unpack linear_unpack_fp16 matmul max_pool1d max_pool2d mul mul_relu mul_scalar mul_scalar_relu prelu
    quantized_gru_cell_dynamic quantized_lstm_cell_dynamic quantized_rnn_relu_cell_dynamic
    quantized_rnn_tanh_cell_dynamic relu6 sigmoid softmax threshold
"""

# Of detection; there only once torchvision is imported.
_TORCHVISION = """
    box_iou_rotated deform_conv2d nms ps_roi_align ps_roi_pool qnms qroi_align roi_align roi_pool
"""

OPERATORS = frozenset(
    [
        *_named("aten", _TENSORS, _LAYERS, _LINEAR_ALGEBRA, _FOURIER, _SPECIAL, _PLACES, _RANDOM),
        *_named("aten", _QUANTIZED_TENSORS, _MODES, _STRINGS, _CONTAINERS, _SCALARS),
        *_named("prim", _PRIMITIVES),
        *_named("quantized", _QUANTIZED),
        *_named("torchvision", _TORCHVISION),
    ]
)

# Classes that C++ reads from a file by code of its own: for a form that says that it is int8, and for no other.
QUANTIZED_CLASSES = frozenset(
    _named(
        "classes",
        """
        quantized.Conv2dPackedParamsBase quantized.Conv3dPackedParamsBase quantized.EmbeddingPackedParamsBase
        quantized.LinearPackedParamsBase rnn.CellParamsBase
        """,
    )
)
