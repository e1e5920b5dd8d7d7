# THE-Mask with MiT-B1, one frame; videos override the head and its decoder, other backbones the channels.
find_unused_parameters = True  # some entries of the official state dicts are never used
model = dict(
    type="BlockSegmentor",
    pretrained="pretrained/mit_b1.pth",
    backbone=dict(type="mit_b1"),
    decode_head=dict(
        type="THEMaskFrameHead",
        num_classes=124,
        input_shape=dict(
            res2=dict(channels=64, stride=4),
            res3=dict(channels=128, stride=8),
            res4=dict(channels=320, stride=16),
            res5=dict(channels=512, stride=32),
        ),
        in_features=["res2", "res3", "res4", "res5"],
        loss_cfg=dict(
            matcher_cfg=dict(
                class_weight=2.0,
                mask_weight=5.0,
                dice_weight=5.0,
                mask_weight_unmatched=0.5,
                dice_weight_unmatched=0.5,
            ),
            warmup_iters=30000,  # of the one-frame model, if two_round_after_warmup is set
            two_round_after_warmup=False,  # as released; True: as the paper has it
            round_weight=[1.0, 0.5],
            aux_weight=0.25,
            deep_supervision=True,
            no_object_weight=0.1,
            train_num_points=12544,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
        ),
        pixel_decoder_cfg=dict(
            type="DeformablePixelDecoder",
            conv_dim=256,
            mask_dim=256,
            norm="GN",
            transformer_dropout=0.0,
            transformer_nheads=8,
            transformer_dim_feedforward=1024,
            transformer_enc_layers=6,
            transformer_in_features=["res3", "res4", "res5"],
            common_stride=4,
        ),
        transformer_decoder_cfg=dict(
            type="FrameQueryDecoder",
            CONVS_DIM=256,
            MASK_DIM=256,
            transformer_in_feature="multi_scale_pixel_decoder",
            num_classes=124,
            hidden_dim=256,
            num_queries=100,
            nheads=8,
            dim_feedforward=2048,
            dec_layers=9,
            pre_norm=False,
            enforce_input_project=False,
            mask_dim=256,
            num_frames=1,  # of a training clip, as data.train.dataset.dilation has it
        ),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
