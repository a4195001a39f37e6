"""MSE, PSNR and SSIM of each image, their means and tables."""
